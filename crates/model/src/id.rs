//! Typed ids: a UUID of version 7 (RFC 9562), so that rows sort by the time they were made.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// An id of a thing of kind `K`; two kinds cannot be mixed up.
pub struct Id<K> {
    uuid: Uuid,
    kind: PhantomData<fn() -> K>,
}

/// The text is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id; ids look like 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidId(pub String);

impl<K> Id<K> {
    /// The id for this moment (milliseconds since 1970) and these random bits.
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        Self::from_uuid(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// An id read from where it was kept.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self {
            uuid,
            kind: PhantomData,
        }
    }

    /// The bare UUID, for storing.
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}
impl<K> FromStr for Id<K> {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text)
            .map(Self::from_uuid)
            .map_err(|_| InvalidId(text.to_owned()))
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.uuid.serialize(serializer)
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from_uuid)
    }
}
#[cfg(feature = "openapi")]
impl<K> utoipa::PartialSchema for Id<K> {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .description(Some("A UUID of version 7."))
            .into()
    }
}
#[cfg(feature = "openapi")]
impl<K> utoipa::ToSchema for Id<K> {
    fn name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $alias:ident = $kind:ident;)*) => {
        /// The kinds that ids are of; never built.
        pub mod kind {
            $(#[doc = concat!("Marks a `", stringify!($alias), "`.")] pub enum $kind {})*
        }
        $($(#[$doc])* pub type $alias = Id<kind::$kind>;)*
    };
}

ids! {
    /// A hardware node.
    NodeId = Node;
    /// A server: a VM with a profile.
    ServerId = Server;
    /// A copy of a server's disk on a node.
    ReplicaId = Replica;
    /// A customer.
    AccountId = Account;
    /// Somebody who sells hosting on, within limits.
    ResellerId = Reseller;
    /// A plan: the limits of an account.
    PlanId = Plan;
    /// A domain's web content on one server.
    SiteId = Site;
    /// A database of a site.
    DatabaseId = Database;
    /// One deployed version of a site's content.
    ReleaseId = Release;
    /// A durable, resumable piece of work.
    OperationId = Operation;
    /// An API token.
    TokenId = Token;
    /// One instance of control.
    InstanceId = Instance;
    /// A file on its way to a site.
    UploadId = Upload;
    /// A public door.
    EdgeId = Edge;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_id_sorts_after_an_earlier_one() {
        let early = NodeId::from_parts(1_000, [255; 10]);
        let late = NodeId::from_parts(1_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.uuid().get_version_num(), 7);
    }

    #[test]
    fn an_id_survives_text_and_json() {
        let id = SiteId::from_parts(1_700_000_000_000, [7; 10]);
        assert_eq!(id.to_string().parse::<SiteId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SiteId>(&json).unwrap(), id);
        assert!("nonsense".parse::<SiteId>().is_err());
    }
}
