//! Limits beside use, as bars: for a customer their plan, for whoever sells an account's.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use undine_model::{AccountId, Bytes};

use super::frame::{Frame, page as written};
use super::words::size;
use crate::app::sessions::Viewer;
use crate::app::usage;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// What is used of what is allowed.
pub struct Bar {
    /// Of what.
    pub label: String,
    /// How much.
    pub used: u64,
    /// How much there may be; at least 1, for a bar needs a length.
    pub most: u64,
    /// The same in words.
    pub words: String,
    /// Is nearly all used, or all?
    pub class: &'static str,
}

/// A bar of a count.
pub fn bar(label: &str, used: u64, most: u64) -> Bar {
    Bar {
        label: label.to_owned(),
        used,
        most: most.max(1),
        words: format!("{used} of {most}"),
        class: level(used, most),
    }
}

fn level(used: u64, most: u64) -> &'static str {
    match used.saturating_mul(100) {
        all if all >= most.saturating_mul(100) => "bad",
        much if much >= most.saturating_mul(80) => "warn",
        _ => "",
    }
}

fn bytes(label: &str, used: u64, most: Bytes) -> Bar {
    Bar {
        label: label.to_owned(),
        used,
        most: most.0.max(1),
        words: format!("{} of {}", size(Bytes(used)), size(most)),
        class: level(used, most.0),
    }
}

/// A plan beside what is used of it.
pub struct Use {
    /// The plan's name.
    pub plan: String,
    /// Of the account.
    pub bars: Vec<Bar>,
    /// Of each site.
    pub sites: Vec<(String, Vec<Bar>)>,
}

/// Of an account that the viewer may know of.
pub async fn of(control: &Control, viewer: &Viewer, account: AccountId) -> Result<Use> {
    let it = usage::of(control, &viewer.caller, account).await?;
    let share = &it.limits.site;
    Ok(Use {
        plan: it.plan.to_string(),
        bars: vec![
            bar("Sites", u64::from(it.sites), u64::from(it.limits.sites)),
            bar(
                "Databases",
                u64::from(it.databases),
                u64::from(it.limits.databases),
            ),
        ],
        sites: it
            .each
            .into_iter()
            .map(|site| {
                let bars = vec![
                    bytes("Disk", site.disk, share.disk),
                    bytes("Memory", site.memory, share.memory),
                ];
                (site.domain, bars)
            })
            .collect(),
    })
}

#[derive(Template)]
#[template(path = "usage.html")]
struct Page {
    f: Frame,
    u: Use,
}

/// The customer's own plan.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    let Some(account) = viewer.caller.account() else {
        return Err(Refusal::invalid(
            "account",
            "The provider has no plan of its own: open an account.",
        ));
    };
    let u = of(&control, &viewer, account).await?;
    written(&Page {
        f: Frame::new(&control, &viewer, "Plan and use", "/plan", 30).await?,
        u,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_when_little_is_left() {
        assert_eq!(bar("Sites", 0, 10).class, "");
        assert_eq!(bar("Sites", 8, 10).class, "warn");
        assert_eq!(bar("Sites", 10, 10).class, "bad");
        let none = bar("Sites", 0, 0);
        assert_eq!((none.class, none.most), ("bad", 1));
    }
}
