//! The panel: pages for people, at the same address as the API. Handlers are thin and call the
//! use cases in `app`; `door` stands before all of it. One table says who may call what;
//! everybody else is refused before anything is read.

mod accounts;
mod answer;
mod at_site;
mod audit;
mod brand;
mod cluster;
mod dns;
mod door;
mod edit;
mod entry;
mod fields;
mod file_forms;
mod files;
mod frame;
mod limits;
mod live;
mod log;
mod me;
mod nodes;
mod operations;
mod parcels;
mod passkeys;
mod people;
mod plans;
mod resellers;
mod second;
mod servers;
mod settings;
mod site;
mod site_actions;
mod site_settings;
mod sites;
mod squeeze;
mod tokens;
mod usage;
mod words;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};
use undine_api::public::Scope;

use crate::control::Control;

/// A page or form and who may call it.
pub struct Guarded {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: &'static str,
    /// Who may call it; nobody else may.
    pub who: Who,
    /// What their role must allow.
    pub scope: Scope,
    handler: fn() -> MethodRouter<Control>,
}

/// Who may call a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody: the request itself proves what it must.
    Anybody,
    /// Whoever is logged in; what is seen depends on what they reach.
    Person,
    /// Whoever sells: the provider's staff or a reseller's people, while they act for no account.
    Seller,
    /// The provider's staff, while it acts for no account.
    Provider,
}

macro_rules! table {
    ($($method:ident $path:literal $who:ident $scope:ident $handler:path;)*) => {
        /// Every page and form.
        pub const TABLE: &[Guarded] = &[$(Guarded {
            method: Method::$method,
            path: $path,
            who: Who::$who,
            scope: Scope::$scope,
            handler: || table!(@$method $handler),
        }),*];
    };
    (@GET $handler:path) => { get($handler) };
    (@POST $handler:path) => { post($handler) };
}

// What is only the person's own needs no more than to be logged in: `Billing` is the least that
// anybody has.
table! {
    GET "/" Anybody Read entry::home;
    GET "/login" Anybody Read entry::login;
    POST "/login" Anybody Read entry::log_in;
    POST "/login/passkey" Anybody Read passkeys::log_in;
    GET "/login/second" Anybody Read entry::second;
    POST "/login/second" Anybody Read entry::pass;
    GET "/forgotten" Anybody Read entry::forgotten;
    POST "/forgotten" Anybody Read entry::forgot;
    GET "/welcome/{secret}" Anybody Read entry::invited;
    POST "/welcome/{secret}" Anybody Read entry::welcome;
    GET "/assets/{name}" Anybody Read frame::asset;
    GET "/brands/{name}" Anybody Read brand::file;
    POST "/logout" Person Billing entry::log_out;
    GET "/live" Person Billing live::stream;
    GET "/me" Person Billing me::page;
    POST "/me/password" Person Billing me::password;
    POST "/me/sessions/{id}/end" Person Billing me::end;
    GET "/me/second" Person Billing second::page;
    POST "/me/second" Person Billing second::switch_on;
    POST "/me/second/off" Person Billing second::switch_off;
    POST "/me/second/codes" Person Billing second::renew_codes;
    GET "/me/passkeys" Person Billing passkeys::page;
    POST "/me/passkeys" Person Billing passkeys::add;
    POST "/me/passkeys/remove" Person Billing passkeys::remove;
    POST "/act" Person Billing me::act;
    GET "/tokens" Person Manage tokens::page;
    POST "/tokens" Person Manage tokens::create;
    POST "/tokens/{id}/end" Person Manage tokens::end;
    GET "/people" Person Read people::page;
    POST "/people" Person Manage people::invite;
    GET "/plan" Person Billing usage::page;
    POST "/people/{id}/remove" Person Manage people::remove;
    POST "/people/{id}/second/off" Person Manage people::take_second_away;
    GET "/cluster" Provider Read cluster::page;
    GET "/join" Provider Read nodes::join;
    POST "/join" Provider Manage nodes::token;
    GET "/nodes/{id}" Provider Read nodes::page;
    POST "/nodes/{id}/use" Provider Manage nodes::use_it;
    GET "/servers" Provider Read servers::list;
    GET "/servers/new" Provider Manage servers::form;
    POST "/servers/new" Provider Manage servers::create;
    GET "/servers/{id}" Provider Read servers::page;
    POST "/servers/{id}/start" Provider Manage servers::start;
    POST "/servers/{id}/stop" Provider Manage servers::stop;
    POST "/servers/{id}/restart" Provider Manage servers::restart;
    POST "/servers/{id}/scrub" Provider Manage servers::scrub;
    POST "/servers/{id}/adopt" Provider Manage servers::adopt;
    POST "/servers/{id}/size" Provider Manage servers::size_it;
    POST "/servers/{id}/delete" Provider Manage servers::delete;
    GET "/settings" Provider Manage settings::page;
    POST "/settings/mail" Provider Manage settings::change_mail;
    POST "/settings/dns" Provider Manage settings::change_dns;
    POST "/settings/mail/try" Provider Manage settings::try_mail;
    GET "/accounts" Seller Read accounts::list;
    POST "/accounts" Seller Manage accounts::create;
    GET "/accounts/{id}" Seller Read accounts::page;
    POST "/accounts/{id}/plan" Seller Manage accounts::move_it;
    POST "/accounts/{id}/suspend" Seller Manage accounts::suspend;
    POST "/accounts/{id}/unsuspend" Seller Manage accounts::unsuspend;
    POST "/accounts/{id}/invite" Seller Manage accounts::invite;
    GET "/plans" Seller Read plans::list;
    POST "/plans" Seller Manage plans::create;
    GET "/plans/{id}" Seller Read plans::page;
    POST "/plans/{id}" Seller Manage plans::change;
    POST "/plans/{id}/delete" Seller Manage plans::delete;
    GET "/brand" Seller Read brand::page;
    POST "/brand" Seller Manage brand::change;
    POST "/brand/logo" Seller Manage brand::logo;
    POST "/brand/logo/remove" Seller Manage brand::no_logo;
    GET "/resellers" Provider Read resellers::list;
    POST "/resellers" Provider Manage resellers::create;
    GET "/resellers/{id}" Provider Read resellers::page;
    POST "/resellers/{id}" Provider Manage resellers::change;
    POST "/resellers/{id}/suspend" Provider Manage resellers::suspend;
    POST "/resellers/{id}/unsuspend" Provider Manage resellers::unsuspend;
    POST "/resellers/{id}/invite" Provider Manage resellers::invite;
    POST "/resellers/{id}/delete" Provider Manage resellers::delete;
    GET "/operations" Person Read operations::list;
    GET "/operations/{id}" Person Read operations::page;
    GET "/audit" Person Read audit::page;
    GET "/sites" Person Read sites::list;
    GET "/sites/new" Person Manage sites::form;
    POST "/sites/new" Person Manage sites::create;
    GET "/sites/{id}" Person Read site::page;
    GET "/sites/{id}/settings" Person Manage site_settings::page;
    POST "/sites/{id}/settings" Person Manage site_settings::change;
    GET "/sites/{id}/log" Person Read log::page;
    GET "/sites/{id}/log/live" Person Read log::live;
    GET "/sites/{id}/files" Person Read files::page;
    GET "/sites/{id}/files/get" Person Deploy files::get;
    GET "/sites/{id}/files/edit" Person Deploy edit::page;
    POST "/sites/{id}/files/edit" Person Deploy edit::save;
    POST "/sites/{id}/files/upload" Person Deploy parcels::upload;
    POST "/sites/{id}/files/folder" Person Deploy file_forms::folder;
    POST "/sites/{id}/files/move" Person Deploy file_forms::rename;
    POST "/sites/{id}/files/remove" Person Deploy file_forms::remove;
    POST "/sites/{id}/files/pack" Person Deploy file_forms::pack;
    POST "/sites/{id}/files/unpack" Person Deploy file_forms::unpack;
    POST "/sites/{id}/suspend" Person Manage site_actions::suspend;
    POST "/sites/{id}/unsuspend" Person Manage site_actions::unsuspend;
    POST "/sites/{id}/retry" Person Manage site_actions::retry;
    POST "/sites/{id}/restart" Person Deploy site_actions::restart;
    POST "/sites/{id}/restore" Person Manage site_actions::restore;
    POST "/sites/{id}/delete" Person Manage site_actions::delete;
    POST "/sites/{id}/databases" Person Manage site_actions::database;
    POST "/sites/{id}/rollback" Person Deploy site_actions::rollback;
}

/// Forms that are read as they come: each field is measured for itself.
const STREAMED: &[&str] = &["/sites/{id}/files/edit", "/sites/{id}/files/upload"];

/// All pages.
pub fn router(control: &Control) -> Router<Control> {
    let mut router = Router::new();
    for it in TABLE {
        let guard =
            middleware::from_fn_with_state((control.clone(), it.who, it.scope), door::guard);
        let mut handler = (it.handler)();
        if STREAMED.contains(&it.path) {
            handler = handler.layer(DefaultBodyLimit::disable());
        }
        router = router.route(it.path, handler.route_layer(guard));
    }
    router.layer(middleware::from_fn_with_state(control.clone(), door::outer))
}
