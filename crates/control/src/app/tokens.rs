//! API tokens: made with their secret shown once, kept as its hash only.

use serde_json::json;
use undine_api::public::{CreateToken, List, NewToken, Scope, Token, TokenRole, WhoAmI};
use undine_model::{AccountId, ResellerId, SiteId, TokenId};
use undine_store::{Db, Role, TokenFilter, Tx};
use uuid::Uuid;

use super::caller::{Caller, Expected, scope_word};
use super::paging::{PageWish, list};
use super::reseller_suspend::behind;
use super::{accounts, resellers, sites};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::{Control, PROGRAM};
use crate::refusal::{Refusal, Result};

/// What secrets of tokens begin with, so that scanners for leaked secrets find them.
const PREFIX: &str = "undine_";

fn show(token: undine_store::Token) -> Token {
    let scope = |word: &String| {
        [Scope::Read, Scope::Deploy, Scope::Manage, Scope::Billing]
            .into_iter()
            .find(|s| scope_word(*s) == word)
    };
    Token {
        id: token.id,
        name: token.name,
        role: match token.role {
            Role::Provider => TokenRole::Provider,
            Role::AccountOwner => TokenRole::AccountOwner,
            Role::Reseller => TokenRole::Reseller,
        },
        account: token.account,
        reseller: token.reseller,
        sites: token
            .sites
            .map(|ids| ids.into_iter().map(SiteId::from_uuid).collect()),
        scopes: token.scopes.iter().filter_map(scope).collect(),
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        revoked_at: token.revoked_at,
        created_at: token.created_at,
        version: token.version,
    }
}

/// A token with its secret, not yet kept.
pub fn fresh(
    name: &str,
    role: Role,
    account: Option<AccountId>,
    scopes: Vec<String>,
    expires_at: Option<i64>,
) -> (undine_store::Token, String) {
    let secret = format!("{PREFIX}{}", new_secret());
    let now = now_ms();
    let token = undine_store::Token {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        name: name.to_owned(),
        role,
        account,
        reseller: None,
        made_by: None,
        sites: None,
        scopes,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    (token, secret)
}

/// Who asks.
pub fn who_am_i(control: &Control, caller: &Caller) -> WhoAmI {
    WhoAmI {
        token: show(caller.token.clone()),
        domain: control.cluster.domain.clone(),
        program: PROGRAM.to_owned(),
    }
}

/// One page of the tokens that the caller may see.
pub async fn all(control: &Control, caller: &Caller, wish: &PageWish) -> Result<List<Token>> {
    let filter = TokenFilter {
        account: caller.account().filter(|_| !caller.sells()),
        reseller: caller.reseller(),
        ..TokenFilter::default()
    };
    Ok(list(
        control
            .store
            .tokens()
            .list(&filter, wish.request(false)?)
            .await?,
        show,
    ))
}

fn is_own(caller: &Caller, token: &undine_store::Token) -> bool {
    match (caller.is_provider(), caller.reseller()) {
        (true, _) => true,
        (false, Some(own)) => token.reseller == Some(own),
        (false, None) => token.account == caller.account(),
    }
}

async fn reach(control: &Control, caller: &Caller, id: TokenId) -> Result<undine_store::Token> {
    match control.store.tokens().find(id).await? {
        Some(token) if is_own(caller, &token) => Ok(token),
        Some(_) => Err(caller.stranger(control, "token", &id.to_string()).await),
        None => Err(Refusal::not_found("token", &id.to_string())),
    }
}

/// One token.
pub async fn get(control: &Control, caller: &Caller, id: TokenId) -> Result<Token> {
    Ok(show(reach(control, caller, id).await?))
}

/// Makes a token that may no more than its maker.
pub async fn create(control: &Control, caller: &Caller, wish: CreateToken) -> Result<NewToken> {
    if wish.name.trim().is_empty() || wish.name.chars().count() > 100 {
        return Err(Refusal::invalid(
            "name",
            "A token's name has 1 to 100 characters.",
        ));
    }
    let reach = reach_of(control, caller, &wish).await?;
    let sites = sites_of(control, &wish, reach.account).await?;
    if let Some(scope) = more_than(caller, &wish.scopes) {
        return Err(Refusal::forbidden(format!(
            "Your token lacks the scope `{scope}` and cannot give it."
        )));
    }
    let scopes = wish
        .scopes
        .iter()
        .map(|scope| scope_word(*scope).to_owned())
        .collect();
    let expires_at = wish.ttl_s.map(|ttl| now_ms() + i64::from(ttl) * 1000);
    let (mut token, secret) = fresh(&wish.name, reach.role, reach.account, scopes, expires_at);
    (token.reseller, token.sites) = (reach.reseller, sites);
    token.made_by = behind(&caller.token).filter(|_| token.account.is_some());
    let tx = control.store.begin().await?;
    tx.tokens().insert(&token).await?;
    let data = json!({"name": token.name, "scopes": token.scopes, "sites": token.sites});
    written_down(&tx, caller, "token.create", &token, data).await?;
    tx.commit().await?;
    Ok(NewToken {
        token: show(token),
        secret,
    })
}

/// In the audit of whoever the token is of.
async fn written_down(
    tx: &Tx,
    caller: &Caller,
    action: &str,
    token: &undine_store::Token,
    data: serde_json::Value,
) -> Result<()> {
    let subject = format!("token/{}", token.id);
    match token.account {
        Some(account) => caller.did(tx, action, subject, Some(account), data).await,
        None => {
            caller
                .did_for(tx, action, subject, token.reseller, data)
                .await
        }
    }
}

/// Whose a token is to be.
struct Reach {
    role: Role,
    account: Option<AccountId>,
    reseller: Option<ResellerId>,
}

async fn reach_of(control: &Control, caller: &Caller, wish: &CreateToken) -> Result<Reach> {
    let (mut account, mut reseller) = (None, None);
    let role = match wish.role {
        TokenRole::Reseller => {
            reseller = Some(for_reseller(control, caller, wish).await?);
            Role::Reseller
        }
        TokenRole::Provider if !caller.is_provider() => {
            return Err(Refusal::forbidden(
                "Only the provider makes tokens for the provider.",
            ));
        }
        TokenRole::Provider if wish.account.is_some() => {
            return Err(Refusal::invalid(
                "account",
                "The provider's tokens reach every account.",
            ));
        }
        TokenRole::Provider => Role::Provider,
        TokenRole::AccountOwner => {
            let meant = accounts::meant(control, caller, wish.account.as_deref()).await?;
            account = Some(meant.id);
            Role::AccountOwner
        }
    };
    Ok(Reach {
        role,
        account,
        reseller,
    })
}

/// A token names at most so many sites.
const MOST_SITES: usize = 100;

/// The only sites that a token is to reach; none is the account whole.
async fn sites_of(
    control: &Control,
    wish: &CreateToken,
    account: Option<AccountId>,
) -> Result<Option<Vec<Uuid>>> {
    let Some(names) = &wish.sites else {
        return Ok(None);
    };
    let Some(account) = account else {
        return Err(Refusal::invalid(
            "sites",
            "Only a token of an account can be for single sites.",
        ));
    };
    if !(1..=MOST_SITES).contains(&names.len()) {
        return Err(Refusal::invalid(
            "sites",
            format!("A token is for 1 to {MOST_SITES} single sites."),
        )
        .remedy("Leave the field out for a token that reaches the whole account."));
    }
    if wish.scopes.contains(&Scope::Billing) {
        return Err(Refusal::invalid(
            "scopes",
            "A token for single sites may manage, deploy or read; billing is the account's.",
        ));
    }
    Ok(Some(sites::named(control, account, names).await?))
}

/// The reseller that a token is to act for.
async fn for_reseller(
    control: &Control,
    caller: &Caller,
    wish: &CreateToken,
) -> Result<ResellerId> {
    if !caller.sells() {
        return Err(Refusal::forbidden(
            "Only the provider and the reseller make tokens for a reseller.",
        ));
    }
    if wish.account.is_some() {
        return Err(Refusal::invalid(
            "account",
            "A reseller's tokens reach all its accounts.",
        ));
    }
    let found = resellers::meant(control, caller, wish.reseller.as_deref()).await?;
    found.ok_or_else(|| Refusal::invalid("reseller", "Say for which reseller: its id or name."))
}

/// A scope that the wish has and the caller has not.
fn more_than(caller: &Caller, wished: &[Scope]) -> Option<&'static str> {
    let all = [Scope::Read, Scope::Deploy, Scope::Manage, Scope::Billing];
    let wished = if wished.is_empty() { &all[..] } else { wished };
    wished
        .iter()
        .find(|scope| !caller.has(**scope))
        .map(|scope| scope_word(*scope))
}

/// Revokes a token, at once and for good.
pub async fn revoke(
    control: &Control,
    caller: &Caller,
    id: TokenId,
    expected: Expected,
) -> Result<()> {
    let token = reach(control, caller, id).await?;
    expected.check("token", token.version)?;
    let tx = control.store.begin().await?;
    let mut token = tx.tokens().lock(id).await?;
    token.revoked_at = token.revoked_at.or_else(|| Some(now_ms()));
    tx.tokens().update(&token, now_ms()).await?;
    let data = json!({"name": token.name});
    written_down(&tx, caller, "token.revoke", &token, data).await?;
    tx.commit().await?;
    Ok(())
}

/// Removes a token's row, with its account.
pub(super) async fn forget(tx: &Tx, id: TokenId) -> Result<()> {
    Ok(tx.tokens().delete(id, None).await?)
}
