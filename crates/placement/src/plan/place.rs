//! Initial placement: the owner and the replicas of a new server.

use crate::cluster::{Cluster, Lack, Place, tenths};
use crate::policy::{Policy, RackRule};
use crate::snapshot::{Server, Snapshot, Storage};
use crate::survive::unsurvivable;

use super::steps::Draft;
use super::{Plan, PlanError};

/// How good a node is for a new owner; lower is better, the first field that differs decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fitness {
    /// How far above the high-water mark it would be.
    excess: u64,
    /// Above the mark that a move may fill a node to.
    above_target: bool,
    /// Servers of the same account on it.
    same_account: usize,
    /// Servers of the same profile on it.
    same_profile: usize,
    /// Predicted use afterwards, in steps of 5 %.
    use_step: u64,
    /// Fullness by reservation, thousandths.
    fullness: u64,
    node: usize,
}

/// Where a new server should stand, and why.
///
/// The server's own `owner` and `replicas` are ignored. The seed decides nothing yet: ties go to
/// the node that the snapshot lists first.
///
/// # Errors
/// A contradictory input, or which limit keeps the server out, short by how much.
pub fn place_server(
    snapshot: &Snapshot,
    policy: &Policy,
    server: &Server,
) -> Result<Plan, PlanError> {
    let mut server = server.clone();
    server.owner = None;
    server.replicas.clear();
    server.owner_has_copy = true;
    let mut c = Cluster::new(snapshot, policy)?;
    let mut draft = Draft::new(&c);
    let at = c.add(&server)?;
    let (place, reason) = choose(&mut c, at).map_err(|reason| PlanError::Impossible {
        subject: server.id.clone(),
        reason,
    })?;
    draft.place(&mut c, at, place, reason);
    Ok(draft.finish(&c, |d| format!("{}: {}", server.id, d.steps[0].reason)))
}

/// The best place of a server that stands nowhere, in words; leaves the cluster as it was.
pub(super) fn choose(c: &mut Cluster<'_>, server: usize) -> Result<(Place, String), String> {
    let mut lacks = Vec::new();
    let mut fits: Vec<Fitness> = Vec::new();
    for n in 0..c.nodes.len() {
        match c.fits_owner(server, n) {
            Ok(()) => fits.push(fitness(c, server, n)),
            Err(lack) => lacks.push(lack),
        }
    }
    if c.nodes.is_empty() {
        return Err("the snapshot has no node".to_owned());
    }
    fits.sort();
    let before = unsurvivable(c).len();
    let refused = lacks.len();
    for f in fits.iter().take(64) {
        let place = match with_copies(c, server, f.node) {
            Ok(place) => place,
            Err(lack) => {
                lacks.push(lack);
                continue;
            }
        };
        c.set(server, place.clone());
        let after = unsurvivable(c).len();
        let reason = words(c, server, f, &place, fits.len(), refused);
        c.set(server, Place::default());
        if after > before {
            lacks.push(Lack::Survival);
            continue;
        }
        return Ok((place, reason));
    }
    Err(format!("refused on {}", Cluster::tally(lacks.into_iter())))
}

fn fitness(c: &Cluster<'_>, server: usize, node: usize) -> Fitness {
    let water = c.water_with(node, Some(server), None);
    Fitness {
        excess: water.saturating_sub(c.policy.high_water),
        above_target: water > c.policy.target_water,
        same_account: c.account_on(server, node),
        same_profile: c.profile_on(server, node),
        use_step: water / 50,
        fullness: c.fullness(node),
        node,
    }
}

/// The place with its owner on `node` and the best nodes for the other copies.
fn with_copies(c: &mut Cluster<'_>, server: usize, node: usize) -> Result<Place, Lack> {
    let replicated = c.server_info[server].storage == Storage::Replicated;
    let mut place = Place {
        owner: Some(node),
        copies: vec![],
        local: replicated,
    };
    if replicated {
        for _ in 1..c.policy.copies {
            c.set(server, place.clone());
            let best = best_copy(c, server);
            c.set(server, Place::default());
            place.copies.push(best?);
        }
    }
    Ok(place)
}

/// The best node for one more copy: another rack first, then the one with the emptiest disk.
pub(super) fn best_copy(c: &Cluster<'_>, server: usize) -> Result<usize, Lack> {
    let mut best = None;
    let mut least = Lack::State;
    for n in 0..c.nodes.len() {
        match c.fits_copy(server, n) {
            Ok(()) => {
                let at = &c.nodes[n];
                let disk = at.reserved[2] + c.server_info[server].reserved.disk_mib;
                let fullness = u128::from(disk) * 1000 / u128::from(at.limits[2].max(1));
                let runs = c.fits_kind(server, n).is_err();
                let rack = c.policy.racks != RackRule::Ignore && c.shares_rack(server, n, None);
                let key = (rack, runs, fullness, n);
                if best.is_none_or(|b| key < b) {
                    best = Some(key);
                }
            }
            Err(lack) => least = least.max(lack),
        }
    }
    best.map(|b| b.3).ok_or(least)
}

fn words(
    c: &Cluster<'_>,
    server: usize,
    f: &Fitness,
    place: &Place,
    fitting: usize,
    refused: usize,
) -> String {
    let id = c.node_id(f.node);
    let water = c.water(f.node);
    let mut text = format!(
        "{id} of {fitting} nodes that fit ({refused} do not): {} % predicted use with it",
        tenths(water)
    );
    text += match (f.excess > 0, f.same_account) {
        (true, _) => ", above the mark as every choice would be",
        (false, 0) if !c.server_info[server].account.is_empty() => {
            ", none of the account's other servers there"
        }
        (false, _) => "",
    };
    let profile = &c.server_info[server].profile;
    text += &match (profile.is_empty(), f.same_profile) {
        (true, _) => String::new(),
        (false, 0) => format!(", no other {profile} there"),
        (false, count) => format!(", {count} other {profile} there"),
    };
    if !place.copies.is_empty() {
        let names: Vec<&str> = place.copies.iter().map(|&n| c.node_id(n)).collect();
        let apart = !place.copies.iter().any(|&n| c.shares_rack(server, n, None));
        text += &format!("; copies on {}", names.join(" and "));
        if apart && c.nodes[f.node].rack.is_some() {
            text += " in other racks";
        }
    }
    if c.policy.survive_losses > 0 {
        text += "; the loss of any node stays as survivable as before";
    }
    text
}
