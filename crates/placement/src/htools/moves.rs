//! hbal's moves of one instance, and what each copies.

use super::state::{Change, Instance, NONE, Place, State};
use super::text::{Template, TextInstance};

/// MiB copied to bring an instance from one place to another: memory for each migration, the disk
/// for each replaced mirror.
pub(super) fn cost(i: &Instance, from: Place, to: Place) -> i64 {
    copied(
        i.template,
        [i.memory, i.disk],
        (from.primary, from.secondary),
        (to.primary, to.secondary),
    )
}

fn copied<N: Copy + PartialEq>(
    template: Template,
    [memory, disk]: [i64; 2],
    from: (N, N),
    to: (N, N),
) -> i64 {
    let disk_copies =
        i64::from(to.0 != from.0 && to.0 != from.1) + i64::from(to.1 != from.0 && to.1 != from.1);
    if template == Template::Shared {
        return if to.0 == from.0 { 0 } else { memory };
    }
    let migrations = if to.0 == from.0 {
        0
    } else if to.1 == from.1 {
        2 // fail over, replace the old primary, fail back
    } else {
        1
    };
    disk_copies * disk + migrations * memory
}

impl TextInstance {
    /// GiB copied to bring the instance from where it is to other nodes by one move of hbal.
    #[must_use]
    pub fn copied_gib(&self, to: (usize, Option<usize>)) -> f64 {
        let from = (Some(self.primary), self.secondary);
        let mib = copied(
            self.template,
            [self.memory, self.disk],
            from,
            (Some(to.0), to.1),
        );
        mib as f64 / 1024.0
    }
}

/// The same in the words of hbal's `a=` column.
pub(super) fn words(i: &Instance, from: Place, to: Place, name: impl Fn(u32) -> String) -> String {
    if i.template == Template::Shared {
        return format!("fa:{}", name(to.primary));
    }
    if to.primary == from.primary {
        format!("r:{}", name(to.secondary))
    } else if to.secondary == from.secondary {
        format!("f r:{} f", name(to.primary))
    } else if to.primary == from.secondary && to.secondary == from.primary {
        "f".to_owned()
    } else if to.primary == from.secondary {
        format!("f r:{}", name(to.secondary))
    } else if to.secondary == from.primary {
        format!("r:{} f", name(to.primary))
    } else {
        format!("r:{} f r:{}", name(to.primary), name(to.secondary))
    }
}

/// Calls `each` with every place that one hbal move can bring the instance to, looking only at
/// every `stride`-th node (1: at all).
pub(super) fn for_each_target(
    state: &State,
    instance: u32,
    stride: usize,
    mut each: impl FnMut(Change),
) {
    let i = &state.instances[instance as usize];
    let at = state.places[instance as usize];
    if !i.movable {
        return;
    }
    let shared = i.template == Template::Shared;
    if !shared {
        each(Change {
            instance,
            to: Place {
                primary: at.secondary,
                secondary: at.primary,
            },
        });
    }
    for n in (instance as usize % stride..state.node_count()).step_by(stride) {
        let n = n as u32;
        if n == at.primary || n == at.secondary || state.is_offline(n as usize) {
            continue;
        }
        if shared {
            each(Change {
                instance,
                to: Place {
                    primary: n,
                    secondary: NONE,
                },
            });
            continue;
        }
        for to in [
            Place {
                primary: at.primary,
                secondary: n,
            },
            Place {
                primary: n,
                secondary: at.primary,
            },
            Place {
                primary: n,
                secondary: at.secondary,
            },
            Place {
                primary: at.secondary,
                secondary: n,
            },
        ] {
            each(Change { instance, to });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drbd() -> Instance {
        Instance {
            memory: 10,
            used_memory: 10,
            disk: 100,
            local_disk: 100,
            vcpus: 1,
            spindles: 1,
            n1_memory: 10,
            load: [1.0; 4],
            tags: vec![],
            template: Template::Drbd,
            movable: true,
        }
    }

    #[test]
    fn each_move_costs_what_it_copies() {
        let from = Place {
            primary: 0,
            secondary: 1,
        };
        let price = |p, s| {
            cost(
                &drbd(),
                from,
                Place {
                    primary: p,
                    secondary: s,
                },
            )
        };
        assert_eq!(price(0, 1), 0);
        assert_eq!(price(1, 0), 10);
        assert_eq!(price(0, 2), 100);
        assert_eq!(price(2, 0), 110);
        assert_eq!(price(1, 2), 110);
        assert_eq!(price(2, 1), 120);
        assert_eq!(price(2, 3), 210);
    }
}
