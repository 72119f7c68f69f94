//! Rows of the real store for the simulator's things, and a record out of rows.

use serde_json::json;
use undine_failover::membership::{self, Record, Worth};
use undine_model::lifecycle::{NodeState, OperationState, ServerState};
use undine_model::{Bytes, Id, InstanceId, MilliCpu, OperationId, ServerId, Slug};
use undine_sim::ids;
use undine_store::{Instance, NEW, Node, Operation, Replica, ReplicaState, Server, Wanted};

/// The id of an instance of control.
pub fn instance_id(number: usize) -> InstanceId {
    Id::from_parts(number as u64, [0; 10])
}

/// The id of the operation that a server's work is claimed by.
pub fn operation_id(server: usize) -> OperationId {
    Id::from_parts(server as u64, [0; 10])
}

fn slug(text: &str) -> Slug {
    text.parse().expect("a name")
}

/// A node that may be used.
pub fn node(number: usize) -> Node {
    Node {
        id: ids::node(number),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        name: slug(&format!("node-{number}")),
        state: NodeState::Ready,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 7300,
        storage_address: None,
        rack: None,
        certificate_serial: None,
        certificate_expires_at: None,
        inventory: json!({}),
        capacity: json!({}),
        accelerator: "kvm".to_owned(),
        versions: json!({}),
        last_report_at: None,
        cordoned: false,
        fenced_at: None,
        bmc: None,
    }
}

/// An instance of control.
pub fn instance(number: usize) -> Instance {
    Instance {
        id: instance_id(number),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        name: slug(&format!("control-{number}")),
        internal_url: String::new(),
        api_url: String::new(),
        heartbeat_at: 0,
        program: String::new(),
        started_at: 0,
    }
}

/// A server with this record.
pub fn server(number: usize, record: &Record) -> Server {
    let byte = u8::try_from(number).expect("few servers");
    Server {
        id: record.server,
        version: NEW,
        created_at: 0,
        updated_at: 0,
        name: slug(&format!("web-{number}")),
        profile: slug("static"),
        image_hash: None,
        node: record.owner,
        state: ServerState::Running,
        wanted: Wanted::Running,
        epoch: record.epoch,
        memory: Bytes::mib(512),
        vcpus: 1,
        cpu: MilliCpu(1_000),
        disk: Bytes::gib(1),
        replica_count: slots(record),
        slots: slots(record),
        importance: 5,
        blank: false,
        template: false,
        smtp: false,
        mac: format!("02:75:6e:00:01:{byte:02x}"),
        ipv4: std::net::Ipv4Addr::new(10, 214, 1, byte),
        ipv6: std::net::Ipv6Addr::from(u128::from(byte)),
        machine_id: String::new(),
        machine: None,
        cpu_model: None,
        operation: None,
        error: None,
        reason: String::new(),
        scrubbed_at: None,
        manifest_version: 0,
        manifest_applied: 0,
    }
}

/// The slots of a record as they are stored.
pub fn slots(record: &Record) -> u32 {
    u32::try_from(record.slots).expect("few slots")
}

/// The work on a server, which nobody has taken.
pub fn operation(number: usize, server: ServerId) -> Operation {
    Operation {
        id: operation_id(number),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        kind: "server.look_after".to_owned(),
        subjects: vec![server.uuid()],
        account: None,
        params: json!({}),
        results: json!({}),
        state: OperationState::Pending,
        step: 0,
        reason: String::new(),
        error: None,
        retries: 0,
        not_before: 0,
        owner: None,
        lease_until: 0,
    }
}

/// A copy as its record has it.
pub fn copy(record: &Record, it: &membership::Replica) -> Replica {
    Replica {
        id: it.id,
        version: NEW,
        created_at: 0,
        updated_at: 0,
        server: record.server,
        node: it.node,
        epoch: record.epoch,
        state: state(it.worth),
        bytes: Bytes(0),
        left_epoch: it.left_epoch,
        left_at: None,
        error: None,
    }
}

/// A copy's state as it is stored.
pub const fn state(worth: Worth) -> ReplicaState {
    match worth {
        Worth::Creating => ReplicaState::Creating,
        Worth::InSync => ReplicaState::InSync,
        Worth::Syncing => ReplicaState::Syncing,
        Worth::Stale => ReplicaState::Stale,
        Worth::Lost => ReplicaState::Lost,
    }
}

const fn worth(state: ReplicaState) -> Worth {
    match state {
        ReplicaState::Creating => Worth::Creating,
        ReplicaState::InSync => Worth::InSync,
        ReplicaState::Syncing => Worth::Syncing,
        ReplicaState::Stale => Worth::Stale,
        ReplicaState::Lost => Worth::Lost,
    }
}

/// A server's record as the rules see it: what control's `copies::record` says.
pub fn record(server: &Server, copies: &[Replica]) -> Record {
    let replica = |copy: &Replica| membership::Replica {
        id: copy.id,
        node: copy.node,
        worth: worth(copy.state),
        left_epoch: copy.left_epoch,
    };
    Record {
        server: server.id,
        epoch: server.epoch,
        version: server.version.unsigned_abs(),
        owner: server.node,
        replicas: copies.iter().map(replica).collect(),
        slots: server.slots as usize,
        wanted: server.wanted == Wanted::Running,
    }
}
