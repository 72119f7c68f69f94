//! Records that are fit to be stored, as the tests need them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use undine_model::lifecycle::{NodeState, OperationState, ServerState, SiteState};
use undine_model::*;
use undine_store::*;

pub const T0: i64 = 1_700_000_000_000;

/// Ids in rising order, so that lists have an order that a test knows.
pub fn id<K>() -> Id<K> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    Id::from_parts(
        T0.unsigned_abs() + LAST.fetch_add(1, Ordering::Relaxed),
        [1; 10],
    )
}

pub fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

pub fn domain(text: &str) -> DomainName {
    text.parse().unwrap()
}

pub fn instance(name: &str) -> Instance {
    Instance {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        internal_url: "https://10.213.0.1:7200".to_owned(),
        api_url: "http://127.0.0.1:7100".to_owned(),
        heartbeat_at: T0,
        program: "0.1.0".to_owned(),
        started_at: T0,
    }
}

pub fn node(name: &str) -> Node {
    Node {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        state: NodeState::Ready,
        address: "10.213.0.11".parse().unwrap(),
        port: 7300,
        storage_address: None,
        rack: None,
        certificate_serial: None,
        certificate_expires_at: None,
        inventory: json!({ "cpu": 4000 }),
        capacity: json!({ "memory": 1u64 << 33 }),
        accelerator: "tcg".to_owned(),
        versions: json!({ "agent": "0.1.0" }),
        last_report_at: None,
        cordoned: false,
        fenced_at: None,
        bmc: None,
    }
}

pub fn edge(name: &str) -> Edge {
    Edge {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        addresses: vec!["127.0.0.1:8443".to_owned()],
        certificate_serial: None,
        certificate_expires_at: None,
        program: "0.1.0".to_owned(),
        last_report_at: None,
        table_version: 0,
    }
}

pub fn plan(name: &str) -> Plan {
    Plan {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        limits: json!({ "sites": 10 }),
        reseller: None,
    }
}

pub fn account(name: &str, plan: PlanId) -> Account {
    Account {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        plan,
        state: AccountState::Active,
        reseller: None,
    }
}

pub fn reseller(name: &str) -> Reseller {
    Reseller {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        limits: json!({"accounts": 5}),
        brand: None,
        host: None,
        state: ResellerState::Active,
    }
}

pub fn join_token(secret: &str) -> JoinToken {
    JoinToken {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        secret_sha256: secret.to_owned(),
        kind: Joiner::Node,
        name: None,
        expires_at: T0 + 1_000,
        used_at: None,
        used_by: None,
    }
}

pub fn token(secret: &str, account: Option<AccountId>) -> Token {
    Token {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        secret_sha256: secret.to_owned(),
        name: "laptop".to_owned(),
        role: if account.is_some() {
            Role::AccountOwner
        } else {
            Role::Provider
        },
        account,
        reseller: None,
        made_by: None,
        sites: None,
        scopes: vec!["sites:write".to_owned()],
        expires_at: Some(T0 + 1_000),
        last_used_at: None,
        revoked_at: None,
    }
}

pub fn audit(actor: &str) -> Audit {
    Audit {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        actor: actor.to_owned(),
        action: "site.create".to_owned(),
        subject: "site/1".to_owned(),
        account: None,
        reseller: None,
        outcome: "ok".to_owned(),
        request_id: None,
        ip: Some("192.0.2.1".to_owned()),
        data: json!({}),
    }
}

pub fn profile(name: &str) -> Profile {
    Profile {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        hash: "h".to_owned(),
        definition: json!({ "runtimes": ["static"] }),
    }
}

pub fn image(hash: &str) -> Image {
    Image {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        hash: hash.to_owned(),
        name: "debian12-web".to_owned(),
        manifest: json!({ "files": {} }),
        source: "images/debian12-web".to_owned(),
    }
}

pub fn server(name: &str, number: u8) -> Server {
    Server {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        name: slug(name),
        profile: slug("static"),
        image_hash: None,
        node: None,
        state: ServerState::Creating,
        wanted: Wanted::Running,
        epoch: 1,
        memory: Bytes::mib(512),
        vcpus: 1,
        cpu: MilliCpu(1_000),
        disk: Bytes::gib(2),
        replica_count: 2,
        slots: 2,
        importance: 5,
        blank: true,
        template: true,
        smtp: false,
        mac: format!("02:75:6e:00:01:{number:02x}"),
        ipv4: std::net::Ipv4Addr::new(10, 214, 1, number),
        ipv6: format!("fd5e:d1e0:214::{number:x}").parse().unwrap(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        machine: None,
        cpu_model: None,
        operation: None,
        error: None,
        reason: "the emptiest node".to_owned(),
        scrubbed_at: None,
        manifest_version: 0,
        manifest_applied: 0,
    }
}

pub fn replica(server: ServerId, node: NodeId) -> Replica {
    Replica {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        server,
        node,
        epoch: 1,
        state: ReplicaState::InSync,
        bytes: Bytes::mib(10),
        left_epoch: None,
        left_at: None,
        error: None,
    }
}

pub fn removal(server: ServerId, node: NodeId) -> Removal {
    Removal {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        server,
        node,
        epoch: 3,
        reason: "the server was deleted".to_owned(),
    }
}

pub fn site(name: &str, account: AccountId, server: ServerId, uid: u32) -> Site {
    Site {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        domain: domain(name),
        account,
        server,
        uid,
        runtime: slug("static"),
        settings: json!({ "document_root": "" }),
        state: SiteState::Creating,
        current_release: None,
        applied_version: 0,
        error: None,
        gone_at: None,
        state_before: None,
    }
}

pub fn database(name: &str, site: &Site) -> Database {
    Database {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        server: site.server,
        account: site.account,
        site: site.id,
        name: name.to_owned(),
        username: name.to_owned(),
        encrypted_password: "sealed".to_owned(),
    }
}

pub fn release(site: SiteId) -> Release {
    Release {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        site,
        sha256: "0".repeat(64),
        size: Bytes(1_234),
        state: ReleaseState::Uploading,
        previous: None,
        error: None,
    }
}

pub fn certificate(host: &str) -> SiteCertificate {
    SiteCertificate {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        host: host.to_owned(),
        chain_pem: "-----BEGIN CERTIFICATE-----".to_owned(),
        encrypted_key: "sealed".to_owned(),
        expires_at: T0 + 1_000_000,
    }
}

pub fn operation(subject: uuid::Uuid) -> Operation {
    Operation {
        id: id(),
        version: NEW,
        created_at: T0,
        updated_at: T0,
        kind: "server.start".to_owned(),
        subjects: vec![subject],
        account: None,
        params: json!({ "template": true }),
        results: json!({}),
        state: OperationState::Pending,
        step: 0,
        reason: "asked by the provider".to_owned(),
        error: None,
        retries: 0,
        not_before: T0,
        owner: None,
        lease_until: 0,
    }
}

/// A plan, an account and a server, for what needs them.
pub async fn tenant(store: &Store) -> (Account, Server) {
    let plan = plan("small");
    let account = account("acme", plan.id);
    let server = server("web-1", 1);
    store.plans().insert(&plan).await.unwrap();
    store.accounts().insert(&account).await.unwrap();
    store.servers().insert(&server).await.unwrap();
    (account, server)
}

pub fn event(kind: &str) -> NewEvent {
    NewEvent {
        kind: kind.to_owned(),
        subject_kind: "server".to_owned(),
        subject: id::<kind::Server>().uuid(),
        account: None,
        data: json!({ "why": "test" }),
        at: T0,
    }
}

use undine_model::id::kind;
