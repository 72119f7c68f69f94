//! One spare in the making: restored at a low weight, then rehearsed.

use std::time::Duration;

use undine_api::guest::Ask;
use undine_model::{MilliCpu, ServerId};
use undine_qemu::command::VmConfig;
use undine_qemu::files::Owner;
use undine_qemu::process::Program;

use super::{Spare, Spares, Wished, fresh_id, holder_of};
use crate::cgroup::Limits;
use crate::guest::Guest;
use crate::host::QEMU;
use crate::problems::chain;
use crate::templates::Templates;

const HELLO: Duration = Duration::from_secs(180);
/// Half a minute of processor time, at a weight at which a busy node gives it little.
const REHEARSAL: Duration = Duration::from_secs(1_800);
const TASKS: u32 = 4_096;

/// A twentieth of a core's weight for all of them: whatever else wants the processor gets it first.
const WEIGHT: MilliCpu = MilliCpu(50);

impl Spares {
    /// Makes one; on failure nothing is left.
    pub(super) async fn make(
        &self,
        templates: &Templates,
        wished: &Wished,
    ) -> Result<Spare, String> {
        let id = fresh_id();
        let uid = self.uids.take(&holder_of(id)).map_err(|e| chain(&e))?;
        let owner = Owner { uid, gid: uid };
        let made = self.restored(templates, wished, id, owner).await;
        let spare = match made {
            Ok(spare) => spare,
            Err(reason) => {
                self.clean(id);
                return Err(reason);
            }
        };
        match rehearsed(&spare, wished).await {
            Ok(()) => Ok(spare),
            Err(reason) => {
                self.end(&spare).await;
                Err(reason)
            }
        }
    }

    async fn restored(
        &self,
        templates: &Templates,
        wished: &Wished,
        id: ServerId,
        owner: Owner,
    ) -> Result<Spare, String> {
        let template = templates.at_hand(&wished.kind.key);
        let template = template.ok_or("its template is gone")?;
        let group = self.group(id);
        let limits = Limits {
            cpu: None,
            reserved: Some(WEIGHT),
            memory: None,
            tasks: TASKS,
        };
        self.cgroup.make(limits).map_err(|error| chain(&error))?;
        group.make(limits).map_err(|error| chain(&error))?;
        let config = VmConfig {
            name: holder_of(id),
            uuid: id.uuid(),
            shape: wished.kind.key.shape.clone(),
            boot: wished.boot.clone(),
            run_dir: self.run_dir(id),
        };
        let program = Program {
            owner: Some(owner),
            ..Program::new(QEMU)
        };
        let vm = template
            .restore(&program, &config)
            .await
            .map_err(|error| chain(&error))?;
        let spare = Spare {
            id,
            kind: wished.kind.clone(),
            vm,
        };
        if let Err(error) = group.add(spare.vm.process().id().pid) {
            let _ = spare.vm.kill().await;
            return Err(chain(&error));
        }
        Ok(spare)
    }
}

async fn rehearsed(spare: &Spare, wished: &Wished) -> Result<(), String> {
    let mut guest = Guest::new(spare.vm.run_dir().agent());
    let rehearsal = async {
        guest.hello(HELLO).await.map_err(|error| chain(&error))?;
        let ask = Ask::Rehearse(Box::new(wished.kind.profile.clone()));
        guest.ask(ask, REHEARSAL).await.map_err(|e| chain(&e))?;
        // Even an idle guest costs several percent of a core under emulation.
        spare.vm.stop().await.map_err(|error| chain(&error))
    };
    let outcome = tokio::select! {
        outcome = rehearsal => outcome,
        _ = spare.vm.wait() => Err("its VM ended".to_owned()),
    };
    // The server that it becomes opens the channel anew.
    guest.close();
    outcome
}
