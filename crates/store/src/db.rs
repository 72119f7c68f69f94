//! The groups of methods, the same outside and inside of a transaction.

use crate::store::{Session, Store, Tx};
use crate::table::Table;
use crate::{
    Account, Audit, Counters, Database, Doubt, Edge, Events, Failures, Idempotency, Image,
    Instance, JoinToken, Leases, Link, Lives, Login, Mail, Manifests, Membership, Metrics, Node,
    Operation, Person, Plan, Profile, Release, Removal, Replica, Reseller, Routes, Server,
    Settings, Site, SiteCertificate, Token,
};

macro_rules! groups {
    (tables { $($(#[$tdoc:meta])* $table:ident: $record:ty,)* }
     others { $($(#[$odoc:meta])* $other:ident: $group:ident,)* }) => {
        /// All groups of methods; a [`Store`] and a [`Tx`] have them both.
        pub trait Db: Sync {
            /// Where the statements run.
            fn session(&self) -> Session<'_>;
            $($(#[$tdoc])* fn $table(&self) -> Table<'_, $record> {
                Table::new(self.session())
            })*
            $($(#[$odoc])* fn $other(&self) -> $group<'_> {
                $group { session: self.session() }
            })*
        }
    };
}

groups! {
    tables {
        /// Control instances.
        instances: Instance,
        /// Hardware nodes.
        nodes: Node,
        /// Public doors.
        edges: Edge,
        /// Join tokens.
        join_tokens: JoinToken,
        /// Who sells hosting on.
        resellers: Reseller,
        /// Plans.
        plans: Plan,
        /// Accounts.
        accounts: Account,
        /// API tokens.
        tokens: Token,
        /// What was done by whom.
        audit: Audit,
        /// Profiles.
        profiles: Profile,
        /// Images.
        images: Image,
        /// Servers.
        servers: Server,
        /// Replicas.
        replicas: Replica,
        /// Copies that nodes must remove when they answer.
        removals: Removal,
        /// Servers that the store may have forgotten something of.
        doubts: Doubt,
        /// Sites.
        sites: Site,
        /// Databases.
        databases: Database,
        /// Releases.
        releases: Release,
        /// Certificates of sites.
        certificates: SiteCertificate,
        /// Durable work.
        operations: Operation,
        /// People who log in.
        people: Person,
        /// Which accounts people reach.
        memberships: Membership,
        /// Where people are logged in.
        sessions: Login,
        /// Links that work once.
        links: Link,
        /// Wrong passwords.
        failures: Failures,
        /// Mail that waits to be sent.
        mails: Mail,
    }
    others {
        /// Settings of the cluster.
        settings: Settings,
        /// Numbers that are given out once.
        counters: Counters,
        /// The lives of the store itself.
        life: Lives,
        /// Leases of nodes.
        leases: Leases,
        /// What happened, in order.
        events: Events,
        /// What each server must run: versions and changes.
        manifests: Manifests,
        /// What the edges must know: version and changes.
        routes: Routes,
        /// Answers to requests that may come twice.
        idempotency: Idempotency,
        /// Measurements.
        metrics: Metrics,
    }
}

impl Db for Store {
    fn session(&self) -> Session<'_> {
        Session::Store(self)
    }
}

impl Db for Tx {
    fn session(&self) -> Session<'_> {
        Session::Tx(self)
    }
}
