//! Which kernel modules a list of names needs, and in which order they load. A module names its
//! own dependencies in its `.modinfo` section, so no tool of the building machine is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// All modules of a kernel package by name.
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Finds every module below `lib/modules/<release>`.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder)
                .with_context(|| format!("the modules in {} cannot be listed", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    files.insert(normal(&stem), path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The files of these modules and of all that they need, dependencies first.
    pub fn in_load_order(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in names {
            visit(name, &mut order, &mut Vec::new(), &|wanted| {
                let file = self
                    .files
                    .get(wanted)
                    .with_context(|| format!("the kernel package has no module {wanted}"))?;
                Ok(depends(&std::fs::read(file)?))
            })?;
        }
        order
            .iter()
            .map(|name| self.files.get(name).cloned().context("a module vanished"))
            .collect()
    }
}

/// Depth first: what a module needs is placed before it, everything once.
fn visit(
    name: &str,
    order: &mut Vec<String>,
    above: &mut Vec<String>,
    needs: &dyn Fn(&str) -> Result<Vec<String>>,
) -> Result<()> {
    let name = normal(name);
    if order.contains(&name) {
        return Ok(());
    }
    if above.contains(&name) {
        bail!("the kernel modules {} need one another", above.join(", "));
    }
    above.push(name.clone());
    for need in needs(&name)? {
        visit(&need, order, above, needs)?;
    }
    above.pop();
    order.push(name);
    Ok(())
}

/// The kernel treats `-` and `_` in module names as equal.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The value of `depends=` among a module's NUL-terminated information strings.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let value = module
        .split(|byte| *byte == 0)
        .find_map(|string| string.strip_prefix(KEY))
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(wanted: &[&str], table: &[(&str, &[&str])]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for name in wanted {
            visit(name, &mut order, &mut Vec::new(), &|name| {
                let row = table
                    .iter()
                    .find(|row| row.0 == name)
                    .context("unknown module")?;
                Ok(row.1.iter().map(ToString::to_string).collect())
            })?;
        }
        Ok(order)
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let table: &[(&str, &[&str])] = &[
            ("virtio_ring", &[]),
            ("virtio", &["virtio_ring"]),
            ("virtio_blk", &["virtio", "virtio_ring"]),
            ("failover", &[]),
            ("virtio_net", &["virtio", "failover"]),
        ];
        let order = order_of(&["virtio-blk", "virtio_net"], table).unwrap();
        assert_eq!(
            order,
            [
                "virtio_ring",
                "virtio",
                "virtio_blk",
                "failover",
                "virtio_net"
            ]
        );
    }

    #[test]
    fn modules_in_a_circle_are_refused() {
        assert!(order_of(&["a"], &[("a", &["b"]), ("b", &["a"])]).is_err());
    }

    #[test]
    fn an_unknown_module_is_named() {
        let empty = Modules {
            files: BTreeMap::new(),
        };
        let error = empty.in_load_order(&["virtio_blk".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("virtio_blk"), "{error}");
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        let file = b"\x7fELF junk\0license=GPL\0depends=virtio,virtio_ring\0name=x\0";
        assert_eq!(depends(file), ["virtio", "virtio_ring"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }
}
