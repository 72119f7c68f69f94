//! Reports to control: every ten seconds, and at once when something changed; what control could
//! not take is said again soon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use undine_link::{CallError, ControlClient, Method};

use crate::agent::Agent;

/// How often at least.
pub const EVERY: Duration = Duration::from_secs(10);
/// Changes in quick succession go out together.
const GATHER: Duration = Duration::from_millis(100);
/// After a report that nobody took, as another instance of control was quicker or none answered.
const AGAIN: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// Tells the reporter that something changed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<Notify>);

impl Changed {
    /// Something changed that control should know soon.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits for a change.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// Says reports to somebody.
trait Says {
    /// Says how things are now; a regular report also tells what changes all the time.
    fn say(&self, regular: bool) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// An agent's reports, said to control.
struct ToControl {
    agent: Arc<Agent>,
    control: ControlClient,
}

impl Says for ToControl {
    async fn say(&self, regular: bool) -> Result<(), CallError> {
        let report = self.agent.report(regular).await;
        self.control
            .call::<serde_json::Value>(
                Method::POST,
                "/internal/v1/nodes/report",
                Some(&report),
                DEADLINE,
            )
            .await
            .map(drop)
    }
}

/// Reports for ever.
pub async fn run(agent: Arc<Agent>, control: ControlClient) {
    let changed = agent.changed().clone();
    keep_saying(&ToControl { agent, control }, &changed, AGAIN).await;
}

/// The log tells when control goes out of reach and when it is back, not every report in between.
async fn keep_saying(says: &impl Says, changed: &Changed, again: Duration) {
    let (mut silent, mut owed) = (false, false);
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let regular = tokio::select! {
            _ = tick.tick() => true,
            () = changed.wait() => {
                tokio::time::sleep(GATHER).await;
                false
            }
            () = tokio::time::sleep(again), if owed => false,
        };
        let said = says.say(regular).await;
        owed = said.as_ref().is_err_and(CallError::is_transient);
        match said {
            Ok(()) if silent => {
                silent = false;
                tracing::info!("control takes reports again");
            }
            Err(error) if !silent => {
                silent = true;
                let error = crate::problems::chain(&error);
                tracing::warn!(error, "control takes no reports; servers go on");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// Answers in this order, then takes everything; writes down what was said.
    struct Control {
        answers: Mutex<VecDeque<CallError>>,
        heard: Mutex<Vec<bool>>,
    }

    impl Says for Control {
        async fn say(&self, regular: bool) -> Result<(), CallError> {
            self.heard.lock().unwrap().push(regular);
            self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
        }
    }

    /// What was said until nothing more comes for a while.
    async fn heard(answers: Vec<CallError>, change: bool) -> Vec<bool> {
        let control = Control {
            answers: Mutex::new(answers.into()),
            heard: Mutex::default(),
        };
        let changed = Changed::default();
        if change {
            changed.tell();
        }
        let saying = keep_saying(&control, &changed, Duration::from_millis(20));
        let quiet = Duration::from_secs(1);
        assert!(tokio::time::timeout(quiet, saying).await.is_err());
        control.heard.into_inner().unwrap()
    }

    fn nobody() -> CallError {
        CallError::Unreachable {
            peer: "control".to_owned(),
            source: None,
        }
    }

    fn nonsense() -> CallError {
        CallError::Unexpected {
            peer: "control".to_owned(),
            detail: "no JSON".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_nobody_took_is_said_again_until_somebody_does() {
        let said = heard(vec![nobody(), nobody()], false).await;
        assert_eq!(said, [true, false, false]);
    }

    #[tokio::test]
    async fn what_was_taken_or_refused_for_good_waits_for_the_next_change() {
        assert_eq!(heard(vec![], false).await, [true]);
        assert_eq!(heard(vec![nonsense()], false).await, [true]);
        assert_eq!(heard(vec![nonsense()], true).await.len(), 2);
    }
}
