//! b
use clap::Args;
#[derive(Args)]
pub(crate) struct BenchArgs {}
pub(crate) fn run(_: &BenchArgs) -> crate::files::Done { Ok(()) }
