//! What a visitor asks a site to keep, and what it says that it has: the trial's own PHP program,
//! and WordPress by XML-RPC.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::wire::{self, Request};

/// Longer than any edge holds a request.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program of PHP sites.
pub const PROGRAM: &str = include_str!("index.php");
/// What its page says.
pub const PAGE: &str = "Undine trial";

/// The value after `name=` in a line of the program.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// A number in a line of the program.
pub fn number(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

/// Numbers with commas between them in a line of the program.
pub fn numbers(text: &str, name: &str) -> Vec<u64> {
    let list = field(text, name).unwrap_or_default();
    list.split(',').filter_map(|it| it.parse().ok()).collect()
}

/// The epoch that the server's address holds, by which the edge has reached it.
pub fn epoch(text: &str) -> Option<u64> {
    let address: Ipv6Addr = field(text, "addr")?.parse().ok()?;
    let host = address.to_bits() as u64;
    (host >> 56 == 0x0e).then_some(host >> 24 & 0xffff_ffff)
}

/// A visitor of a PHP site with a session.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    cookie: Option<String>,
}

impl Visitor {
    /// Sends what is to be written; what the program said.
    pub fn write(&mut self, edge: SocketAddr, host: &str, path: &str) -> Result<String> {
        let text = self.ask(edge, host, path, "POST")?;
        ensure!(
            text.starts_with("written"),
            "the program said `{}`",
            text.trim()
        );
        Ok(text)
    }

    /// Asks what is there.
    pub fn found(&mut self, edge: SocketAddr, host: &str) -> Result<String> {
        self.ask(edge, host, "/?do=found", "GET")
    }

    fn ask(&mut self, edge: SocketAddr, host: &str, path: &str, method: &str) -> Result<String> {
        let cookie = self.cookie.clone().unwrap_or_default();
        let headers: &[(&str, &str)] = if cookie.is_empty() {
            &[]
        } else {
            &[("Cookie", &cookie)]
        };
        let request = Request {
            method,
            host,
            path,
            headers,
            body: &[],
        };
        let answer = wire::ask(edge, &request, PATIENCE)?;
        ensure!(answer.status == 200, "status {}", answer.status);
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        Ok(answer.text())
    }
}

/// WordPress by XML-RPC, as its administrator.
#[derive(Debug, Clone)]
pub struct WordPress {
    /// The administrator's name.
    pub user: String,
    /// The administrator's password.
    pub password: String,
}

impl WordPress {
    /// Publishes an article with this title.
    pub fn publish(&self, edge: SocketAddr, host: &str, title: &str) -> Result<()> {
        let post = format!(
            "<value><struct><member><name>post_title</name><value>{title}</value></member>\
             <member><name>post_status</name><value>publish</value></member></struct></value>"
        );
        let said = self.call(edge, host, "wp.newPost", &[&post])?;
        ensure!(!said.contains("<fault>"), "{}", fault(&said));
        Ok(())
    }

    /// The numbers of all articles whose title is `trial-NUMBER`.
    pub fn numbers(&self, edge: SocketAddr, host: &str) -> Result<Vec<u64>> {
        let filter = "<value><struct><member><name>number</name><value><int>100000</int></value>\
                      </member></struct></value>";
        let fields = "<value><array><data><value>post_title</value></data></array></value>";
        let said = self.call(edge, host, "wp.getPosts", &[filter, fields])?;
        ensure!(!said.contains("<fault>"), "{}", fault(&said));
        Ok(titles(&said))
    }

    fn call(&self, edge: SocketAddr, host: &str, name: &str, more: &[&str]) -> Result<String> {
        let plain = |text: &str| format!("<value>{text}</value>");
        let mut params = vec![plain("1"), plain(&self.user), plain(&self.password)];
        params.extend(more.iter().map(|it| (*it).to_owned()));
        let params: String = params
            .iter()
            .map(|value| format!("<param>{value}</param>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?><methodCall><methodName>{name}</methodName>\
             <params>{params}</params></methodCall>"
        );
        let request = Request {
            method: "POST",
            host,
            path: "/xmlrpc.php",
            headers: &[("Content-Type", "text/xml")],
            body: body.as_bytes(),
        };
        let answer = wire::ask(edge, &request, PATIENCE).context(name.to_owned())?;
        ensure!(answer.status == 200, "{name}: status {}", answer.status);
        Ok(answer.text())
    }
}

fn titles(xml: &str) -> Vec<u64> {
    let after = xml.split("trial-").skip(1);
    let digits = after.map(|rest| rest.split(|it: char| !it.is_ascii_digit()).next());
    digits.filter_map(|it| it?.parse().ok()).collect()
}

fn fault(xml: &str) -> String {
    let inner = xml.split("<string>").nth(1);
    let text = inner.and_then(|rest| rest.split('<').next());
    text.unwrap_or("WordPress refused").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_lines_are_read_by_their_names() {
        let text = "Undine trial newest=12 addr=fd5e:d1e0:214:0:e00:0:701:1\n";
        assert_eq!(number(text, "newest"), Some(12));
        assert_eq!(epoch(text), Some(7));
        // The stable address holds none.
        assert_eq!(epoch("addr=fd5e:d1e0:214::1:1"), None);
        assert_eq!(epoch("addr=10.214.0.9"), None);
        assert_eq!(number("written addr=x", "number"), None);
    }

    #[test]
    fn articles_are_counted_by_their_titles() {
        let xml = "<value><string>trial-3</string></value><string>Hello world!</string>\
                   <string>trial-14</string>";
        assert_eq!(titles(xml), [3, 14]);
        assert!(titles("<string>Hello</string>").is_empty());
        let said = "<fault><string>Incorrect username</string></fault>";
        assert_eq!(fault(said), "Incorrect username");
    }
}
