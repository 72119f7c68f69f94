//! A server's end: the agent inside is asked, then the power button is pressed, then QEMU is told
//! to quit, then killed. What it left behind is removed; its disk and its console log stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use undine_api::guest::Ask;
use undine_model::ServerId;
use undine_qemu::files::RunDir;
use undine_qemu::relay::Relay;
use undine_qemu::vm::Vm;

use super::Ground;
use super::start::vm_cgroup;
use crate::guest::Guest;
use crate::problems::chain;
use crate::settings::{relay_run_folder, scrub_run_folder, vm_run_folder};

/// Somebody may be talking to the agent; an upload may take longer than anybody's patience.
const AGENT_FREE: Duration = Duration::from_secs(2);

/// Ends a server's VM, whatever state it is in, and everything that belongs to the VM.
///
/// # Errors
/// In words: a process that cannot be killed.
pub async fn end(
    ground: &Ground,
    server: ServerId,
    vm: Option<Vm>,
    guest: &Arc<Mutex<Guest>>,
    grace: Duration,
) -> Result<(), String> {
    if let Some(vm) = vm {
        gently(&vm, guest, grace).await?;
    }
    make_sure(ground, server).await?;
    ground.guarded.remove(server);
    for relay in [
        relay_run_folder(&ground.run_dir, server),
        scrub_run_folder(&ground.run_dir, server),
    ] {
        Relay::end_left_over(&RunDir::new(relay))
            .await
            .map_err(|error| chain(&error))?;
    }
    clean(ground, server).await;
    Ok(())
}

async fn gently(vm: &Vm, guest: &Arc<Mutex<Guest>>, grace: Duration) -> Result<(), String> {
    let until = Instant::now() + grace;
    if !grace.is_zero() {
        if let Ok(mut guest) = timeout(AGENT_FREE, guest.lock()).await {
            // It may power off before its answer is out.
            let _ = guest.ask(Ask::Shutdown, grace).await;
            guest.close();
        }
        let left = until.saturating_duration_since(Instant::now());
        if vm.process().wait_within(left / 2).await {
            return Ok(());
        }
    }
    let left = until.saturating_duration_since(Instant::now());
    let ended = if left.is_zero() {
        vm.quit().await
    } else {
        vm.shut_down(left).await
    };
    ended.map(drop).map_err(|error| chain(&error))
}

/// Kills whatever still runs in the server's folder.
async fn make_sure(ground: &Ground, server: ServerId) -> Result<(), String> {
    let run_dir = RunDir::new(vm_run_folder(&ground.run_dir, server));
    if let Some(process) = Vm::find_process(&run_dir).map_err(|error| chain(&error))? {
        process.kill().map_err(|error| chain(&error))?;
        process.gone().await.map_err(|error| chain(&error))?;
    }
    Ok(())
}

/// Removes tap and control group; a new start makes them anew.
pub async fn clean(ground: &Ground, server: ServerId) {
    if let Some(network) = &ground.network
        && let Err(error) = network.unplug(server).await
    {
        tracing::warn!(%server, error = chain(&error), "a tap could not be removed");
    }
    vm_cgroup(ground, server).remove();
}
