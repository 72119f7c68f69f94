//! What a person reaches while their session shows an account, or none: as what, which scopes, and
//! whether an account whole or single sites of it.

use undine_model::{AccountId, SiteId};
use undine_store::{Db, Member, Membership, MembershipFilter, Person, Role, Staff, Store};

use crate::refusal::Result;

/// What a person reaches.
pub(super) struct Reach {
    /// The accounts that they are members of, each whole or in part.
    pub accounts: Vec<(AccountId, Member)>,
    /// The one that is shown now.
    pub account: Option<AccountId>,
    /// As what.
    pub role: Role,
    /// What they may; an empty list is everything.
    pub scopes: &'static [&'static str],
    /// The only sites of the account.
    pub sites: Option<Vec<SiteId>>,
}

/// What this person reaches when their session was last at this account.
pub(super) async fn reach(
    store: &Store,
    person: &Person,
    last: Option<AccountId>,
) -> Result<Reach> {
    let memberships = memberships(store, person).await?;
    let account = match person.staff {
        Staff::None => {
            // A membership that ended takes the session's account with it.
            let still = last.filter(|own| memberships.iter().any(|one| one.account == *own));
            still.or_else(|| memberships.first().map(|one| one.account))
        }
        // So does an account that went to another seller.
        Staff::Reseller => sold_by(store, person, last).await?,
        Staff::Owner | Staff::Operator | Staff::Support => last,
    };
    let member = memberships.iter().find(|one| Some(one.account) == account);
    let sites = member.and_then(|one| one.sites.as_ref());
    Ok(Reach {
        accounts: memberships
            .iter()
            .map(|one| (one.account, one.role))
            .collect(),
        account,
        role: match (person.staff, account) {
            (Staff::None, _) | (_, Some(_)) => Role::AccountOwner,
            (Staff::Reseller, None) => Role::Reseller,
            (Staff::Owner | Staff::Operator | Staff::Support, None) => Role::Provider,
        },
        scopes: scopes(person.staff, account.is_some(), member.map(|one| one.role)),
        sites: sites.map(|ids| ids.iter().map(|id| SiteId::from_uuid(*id)).collect()),
    })
}

async fn memberships(store: &Store, person: &Person) -> Result<Vec<Membership>> {
    if person.staff != Staff::None {
        return Ok(Vec::new());
    }
    let filter = MembershipFilter {
        person: Some(person.id),
        ..MembershipFilter::default()
    };
    Ok(store.memberships().all(&filter).await?)
}

/// The account, while it is a customer of this person's reseller.
pub(super) async fn sold_by(
    store: &Store,
    person: &Person,
    account: Option<AccountId>,
) -> Result<Option<AccountId>> {
    let Some(id) = account else {
        return Ok(None);
    };
    let found = store.accounts().find(id).await?;
    let own = found.filter(|it| person.reseller.is_some() && it.reseller == person.reseller);
    Ok(own.map(|it| it.id))
}

/// An empty list is everything.
fn scopes(staff: Staff, acting: bool, member: Option<Member>) -> &'static [&'static str] {
    match (staff, member) {
        (Staff::Owner | Staff::Operator | Staff::Reseller, _) => &[],
        (Staff::Support, _) if acting => &[],
        (Staff::None, Some(Member::Owner | Member::Manager)) => &[],
        (Staff::None, Some(Member::Deployer)) => &["deploy"],
        (Staff::None, Some(Member::Billing)) => &["billing"],
        _ => &["read"],
    }
}
