//! Says what is being done and how long each part took.

use std::time::Instant;

use serde::Serialize;

/// One finished part.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The parts so far.
pub struct Phases {
    begun: Instant,
    current: Option<(String, Instant)>,
    done: Vec<Phase>,
}

impl Phases {
    /// None yet.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            current: None,
            done: Vec::new(),
        }
    }

    /// Ends the part before and begins this one.
    pub fn begin(&mut self, name: &str) {
        self.end();
        println!("[{:6.1} s] {name}", self.begun.elapsed().as_secs_f64());
        self.current = Some((name.to_owned(), Instant::now()));
    }

    /// Ends the last part.
    pub fn end(&mut self) {
        if let Some((name, begun)) = self.current.take() {
            self.done.push(Phase {
                name,
                seconds: begun.elapsed().as_secs_f64(),
            });
        }
    }

    /// Seconds in all.
    pub fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The finished parts.
    pub fn done(&self) -> &[Phase] {
        &self.done
    }
}
