//! The model and assignment files, with exact error positions.

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {what}")]
pub struct ReadError {
    /// Line, from 1.
    pub line: usize,
    /// What was to be read.
    pub field: &'static str,
    /// What is wrong.
    pub what: String,
}

/// A kind of resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// A moved process still counts on its old machine.
    pub transient: bool,
    /// Cost of a unit above the safety capacity.
    pub weight: i64,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its neighbourhood.
    pub neighbourhood: usize,
    /// Its location.
    pub location: usize,
    /// Hard limit of each resource.
    pub capacity: Vec<i64>,
    /// Use above this costs.
    pub safety: Vec<i64>,
    /// Cost of moving a process from here to each machine.
    pub move_cost: Vec<i64>,
}

/// A service: a set of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// In so many locations at least it must stand.
    pub spread: usize,
    /// Services that each of its neighbourhoods must have.
    pub needs: Vec<usize>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its service.
    pub service: usize,
    /// What it uses of each resource.
    pub requirement: Vec<i64>,
    /// Cost of moving it.
    pub move_cost: i64,
}

/// Free units of one resource are wanted for those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// The first resource.
    pub first: usize,
    /// The second.
    pub second: usize,
    /// Units of the second wanted for a unit of the first.
    pub target: i64,
    /// Cost of a missing unit.
    pub weight: i64,
}

/// A whole model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The resources.
    pub resources: Vec<Resource>,
    /// The machines.
    pub machines: Vec<Machine>,
    /// The services.
    pub services: Vec<Service>,
    /// The processes.
    pub processes: Vec<Process>,
    /// The balance costs.
    pub balances: Vec<Balance>,
    /// Weights of process, service and machine move cost.
    pub move_weights: [i64; 3],
}

/// Far above any real value, and products of a few of them still fit.
const LARGEST: i64 = 1_000_000_000_000;

struct Numbers<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    line: usize,
    words: std::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Numbers<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.lines().enumerate(),
            line: 0,
            words: "".split_ascii_whitespace(),
        }
    }

    fn error(&self, field: &'static str, what: impl Into<String>) -> ReadError {
        ReadError {
            line: self.line,
            field,
            what: what.into(),
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        loop {
            if let Some(word) = self.words.next() {
                return Some(word);
            }
            let (i, line) = self.lines.next()?;
            self.line = i + 1;
            self.words = line.split_ascii_whitespace();
        }
    }

    fn number(&mut self, field: &'static str) -> Result<i64, ReadError> {
        let Some(word) = self.word() else {
            return Err(self.error(field, "the file ends here"));
        };
        match word.parse::<i64>() {
            Ok(n) if (0..=LARGEST).contains(&n) => Ok(n),
            Ok(n) => Err(self.error(field, format!("{n} is not between 0 and {LARGEST}"))),
            Err(_) => Err(self.error(field, format!("{word:?} is no whole number"))),
        }
    }

    /// How many of something follow, each of at least one word of the file.
    fn count(&mut self, field: &'static str, most: usize) -> Result<usize, ReadError> {
        let n = self.number(field)?;
        match usize::try_from(n) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(self.error(field, format!("{n} cannot be in a file of this size"))),
        }
    }

    fn index(&mut self, field: &'static str, below: usize) -> Result<usize, ReadError> {
        let n = self.number(field)?;
        match usize::try_from(n) {
            Ok(n) if n < below => Ok(n),
            _ => Err(self.error(field, format!("{n} is not below {below}"))),
        }
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, ReadError> {
        Ok(self.index(field, 2)? == 1)
    }

    fn numbers(&mut self, field: &'static str, count: usize) -> Result<Vec<i64>, ReadError> {
        (0..count).map(|_| self.number(field)).collect()
    }

    fn end(&mut self) -> Result<(), ReadError> {
        match self.word() {
            None => Ok(()),
            Some(word) => Err(self.error("end", format!("{word:?} stands after the last value"))),
        }
    }
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// The line and value that is malformed or names what the file does not have.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        let most = text.len();
        let mut n = Numbers::new(text);
        let resources: Vec<Resource> = (0..n.count("number of resources", most.min(1000))?)
            .map(|_| {
                Ok(Resource {
                    transient: n.flag("transient")?,
                    weight: n.number("load weight")?,
                })
            })
            .collect::<Result<_, ReadError>>()?;
        let machine_count = n.count("number of machines", most)?;
        let mut machines = Vec::new();
        for _ in 0..machine_count {
            machines.push(Machine {
                neighbourhood: n.index("neighbourhood", most)?,
                location: n.index("location", most)?,
                capacity: n.numbers("capacity", resources.len())?,
                safety: n.numbers("safety capacity", resources.len())?,
                move_cost: n.numbers("machine move cost", machine_count)?,
            });
        }
        let service_count = n.count("number of services", most)?;
        let mut services = Vec::new();
        for _ in 0..service_count {
            let spread = n.count("spread", most)?;
            let needs = n.count("number of dependencies", most)?;
            let needs = (0..needs)
                .map(|_| n.index("dependency", service_count))
                .collect::<Result<_, _>>()?;
            services.push(Service { spread, needs });
        }
        let mut processes = Vec::new();
        for _ in 0..n.count("number of processes", most)? {
            processes.push(Process {
                service: n.index("service", service_count)?,
                requirement: n.numbers("requirement", resources.len())?,
                move_cost: n.number("process move cost")?,
            });
        }
        let mut balances = Vec::new();
        for _ in 0..n.count("number of balance costs", most)? {
            balances.push(Balance {
                first: n.index("first resource", resources.len())?,
                second: n.index("second resource", resources.len())?,
                target: n.number("target")?,
                weight: n.number("balance weight")?,
            });
        }
        let mut move_weights = [0; 3];
        for w in &mut move_weights {
            *w = n.number("move weight")?;
        }
        n.end()?;
        Ok(Self {
            resources,
            machines,
            services,
            processes,
            balances,
            move_weights,
        })
    }

    /// The model in the file format.
    #[must_use]
    pub fn write(&self) -> String {
        let join = |values: &[i64]| -> String { values.iter().map(|v| format!(" {v}")).collect() };
        let mut out = format!("{}\n", self.resources.len());
        for r in &self.resources {
            out += &format!("{} {}\n", i32::from(r.transient), r.weight);
        }
        out += &format!("{}\n", self.machines.len());
        for m in &self.machines {
            out += &format!("{} {}", m.neighbourhood, m.location);
            out += &join(&m.capacity);
            out += &join(&m.safety);
            out += &join(&m.move_cost);
            out.push('\n');
        }
        out += &format!("{}\n", self.services.len());
        for s in &self.services {
            out += &format!("{} {}", s.spread, s.needs.len());
            s.needs.iter().for_each(|d| out += &format!(" {d}"));
            out.push('\n');
        }
        out += &format!("{}\n", self.processes.len());
        for p in &self.processes {
            out += &format!("{}{} {}\n", p.service, join(&p.requirement), p.move_cost);
        }
        out += &format!("{}\n", self.balances.len());
        for b in &self.balances {
            out += &format!("{} {} {}\n{}\n", b.first, b.second, b.target, b.weight);
        }
        let [p, s, m] = self.move_weights;
        out + &format!("{p} {s} {m}\n")
    }
}

/// Reads an assignment file: the machine of each process.
///
/// # Errors
/// The line and value that is malformed, missing or too many.
pub fn read_assignment(text: &str, model: &Model) -> Result<Vec<usize>, ReadError> {
    let mut n = Numbers::new(text);
    let out = (0..model.processes.len())
        .map(|_| n.index("machine", model.machines.len()))
        .collect::<Result<_, _>>()?;
    n.end()?;
    Ok(out)
}
