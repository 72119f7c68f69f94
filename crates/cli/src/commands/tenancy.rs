//! Accounts, plans and tokens.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;
use undine_api::public::{CreateAccount, CreateToken, Scope, TokenRole};

use super::{Context, confirm, file};
use crate::args::{Account, Plan, RoleName, ScopeName, Token, Waiting};

const ACCOUNTS: [(&str, &str); 5] = [
    ("NAME", "name"),
    ("STATE", "state"),
    ("SITES", "uses.sites"),
    ("DATABASES", "uses.databases"),
    ("ID", "id"),
];
const PLANS: [(&str, &str); 5] = [
    ("NAME", "name"),
    ("SITES", "limits.sites"),
    ("DATABASES", "limits.databases"),
    ("DISK A SITE", "limits.site.disk"),
    ("MEMORY A SITE", "limits.site.memory"),
];
const TOKENS: [(&str, &str); 6] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("ROLE", "role"),
    ("SCOPES", "scopes"),
    ("LAST USED", "last_used_at"),
    ("REVOKED", "revoked_at"),
];

pub async fn account(context: &Context, command: Account) -> Result<()> {
    match command {
        Account::List => context.list("/v1/accounts", &ACCOUNTS).await,
        Account::Show { account } => {
            let id = context.id("accounts", "name", &account).await?;
            context.look(&format!("/v1/accounts/{id}")).await
        }
        Account::Create { name, plan } => {
            let answer = context
                .client
                .post("/v1/accounts", &CreateAccount { name, plan })
                .await?;
            context.tell(&answer)
        }
        Account::Suspend { account, waiting } => act(context, &account, "suspend", &waiting).await,
        Account::Unsuspend { account, waiting } => {
            act(context, &account, "unsuspend", &waiting).await
        }
        Account::Delete { account, sure } => {
            confirm(&sure, "deleting an account")?;
            let id = context.id("accounts", "name", &account).await?;
            let path = format!("/v1/accounts/{id}");
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.tell(&answer)
        }
    }
}

async fn act(context: &Context, account: &str, verb: &str, waiting: &Waiting) -> Result<()> {
    let id = context.id("accounts", "name", account).await?;
    let path = format!("/v1/accounts/{id}/{verb}");
    let answer = context.client.post(&path, &json!({})).await?;
    context.follow(answer, waiting).await
}

pub async fn plan(context: &Context, command: Plan) -> Result<()> {
    match command {
        Plan::List => context.list("/v1/plans", &PLANS).await,
        Plan::Create { name, file: limits } => {
            let wish = json!({ "name": name, "limits": file(&limits)? });
            let answer = context.client.post("/v1/plans", &wish).await?;
            context.tell(&answer)
        }
    }
}

pub async fn token(context: &Context, command: Token) -> Result<()> {
    match command {
        Token::List => context.list("/v1/tokens", &TOKENS).await,
        Token::Create {
            name,
            role,
            account,
            scope,
            ttl,
        } => {
            let wish = CreateToken {
                name,
                role: match role {
                    RoleName::Provider => TokenRole::Provider,
                    RoleName::AccountOwner => TokenRole::AccountOwner,
                },
                account,
                scopes: scope.into_iter().map(scope_of).collect(),
                ttl_s: ttl,
            };
            let answer = context.client.post("/v1/tokens", &wish).await?;
            context.tell(&answer)
        }
        Token::Revoke { token } => {
            let path = format!("/v1/tokens/{token}");
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.tell(&answer)
        }
    }
}

fn scope_of(name: ScopeName) -> Scope {
    match name {
        ScopeName::Read => Scope::Read,
        ScopeName::Deploy => Scope::Deploy,
        ScopeName::Manage => Scope::Manage,
    }
}
