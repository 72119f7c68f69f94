//! People who log in to the panel: who they are, what they reach, where they are logged in.

use serde_json::Value as Json;
use undine_model::{AccountId, Id, ResellerId};
use uuid::Uuid;

use crate::record::{record, words};

/// Marks the id of a person.
pub enum PersonKind {}
/// A person's id.
pub type PersonId = Id<PersonKind>;
/// Marks the id of a membership.
pub enum MembershipKind {}
/// A membership's id.
pub type MembershipId = Id<MembershipKind>;
/// Marks the id of a session.
pub enum LoginKind {}
/// A session's id.
pub type LoginId = Id<LoginKind>;
/// Marks the id of a one-time link.
pub enum LinkKind {}
/// A one-time link's id.
pub type LinkId = Id<LinkKind>;
/// Marks the id of a count of wrong passwords.
pub enum FailuresKind {}
/// The id of a count of wrong passwords.
pub type FailuresId = Id<FailuresKind>;

words! {
    /// What a person is to the provider.
    Staff {
        /// Everything, people of the provider included.
        Owner = "owner",
        /// Everything but the provider's people.
        Operator = "operator",
        /// Looks at everything and acts for accounts, with a banner and an audit row.
        Support = "support",
        /// Sells hosting on: has plans and customers of its own.
        Reseller = "reseller",
        /// Nothing: a customer, who reaches accounts by membership.
        None = "none",
    }
}

words! {
    /// What a person is to an account.
    Member {
        /// Everything in it, its people included.
        Owner = "owner",
        /// Everything in it but its people.
        Manager = "manager",
        /// Deploys and looks.
        Deployer = "deployer",
        /// Looks.
        Reader = "reader",
        /// Sees the plan and what is used of it, nothing else.
        Billing = "billing",
    }
}

record! {
    /// Somebody with a password.
    Person, "person" in "people", id PersonId {
        /// The address, in lower case; logs in with it.
        email: String,
        /// What others call them.
        name: String,
        /// What they are to the provider.
        staff: Staff,
        /// Argon2id, in PHC notation.
        password_hash: String,
        /// The second step of their log-in, if they have one; its secret is sealed.
        second: Option<Json>,
        /// The reseller that they are of.
        reseller: Option<ResellerId>,
        /// The passkeys that they log in with.
        passkeys: Option<Json>,
    }
    /// Which people.
    filter PersonFilter { email: String, staff: Staff, reseller: ResellerId }
    frozen {}
}

record! {
    /// A person reaches an account.
    Membership, "membership" in "memberships", id MembershipId {
        /// Who.
        person: PersonId,
        /// Which account.
        account: AccountId,
        /// As what.
        role: Member,
        /// The only sites of it that they reach; without, all of them.
        sites: Option<Vec<Uuid>>,
    }
    /// Which memberships.
    filter MembershipFilter { person: PersonId, account: AccountId }
    frozen {}
}

record! {
    /// A browser in which a person is logged in.
    Login, "session" in "sessions", id LoginId {
        /// SHA-256 of the cookie's secret, hexadecimal.
        secret_sha256: String,
        /// Who.
        person: PersonId,
        /// The account that its pages show; for staff: acting for it.
        account: Option<AccountId>,
        /// What the browser called itself.
        agent: String,
        /// From where it was last used.
        ip: String,
        /// When it was last used; exact to a minute.
        last_used_at: i64,
        /// When it ends.
        expires_at: i64,
    }
    /// Which sessions.
    filter LoginFilter { secret_sha256: String, person: PersonId }
    frozen { last_used_at, ip }
}

record! {
    /// A link that works once: whoever has it chooses a password.
    Link, "link" in "links", id LinkId {
        /// SHA-256 of its secret, hexadecimal.
        secret_sha256: String,
        /// For a person who is there: sets a new password. Else it makes a person.
        person: Option<PersonId>,
        /// What a new person is to the provider.
        staff: Staff,
        /// The account that a new person reaches.
        account: Option<AccountId>,
        /// As what.
        role: Member,
        /// The only sites of it.
        sites: Option<Vec<Uuid>>,
        /// The reseller that a new person is of.
        reseller: Option<ResellerId>,
        /// When it ends.
        expires_at: i64,
    }
    /// Which links.
    filter LinkFilter { secret_sha256: String, person: PersonId, account: AccountId }
    frozen {}
}

record! {
    /// Wrong passwords for one address from one place, or from one place for any.
    Failures, "failures" in "login_failures", id FailuresId {
        /// What is counted.
        what: String,
        /// How many, since the last right one.
        failed: i64,
        /// No further try before this.
        closed_until: i64,
    }
    /// Which counts.
    filter FailuresFilter { what: String }
    frozen {}
}
