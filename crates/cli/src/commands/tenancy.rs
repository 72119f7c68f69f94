//! Accounts, plans and tokens.

use anyhow::Result;
use undine_api::public::{CreateAccount, CreatePlan, CreateToken, Scope, TokenRole};
use undine_client::new_key;

use super::{ANY, Context, confirm, every, file};
use crate::args::{Account, Plan, RoleName, ScopeName, Token};

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
        Account::List => context.list(
            &every!(context, every_accounts, ListAccountsQuery),
            &ACCOUNTS,
        ),
        Account::Show { account } => {
            let id = context.account(&account).await?;
            context.tell(&context.client.get_account(id).await?)
        }
        Account::Create { name, plan } => {
            let answer = context
                .client
                .create_account(&new_key(), &CreateAccount { name, plan })
                .await?;
            context.tell(&answer)
        }
        Account::Suspend { account, waiting } => {
            let id = context.account(&account).await?;
            let answer = context.client.suspend_account(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Account::Unsuspend { account, waiting } => {
            let id = context.account(&account).await?;
            let answer = context
                .client
                .unsuspend_account(id, ANY, &new_key())
                .await?;
            context.follow(answer, &waiting).await
        }
        Account::Delete { account, sure } => {
            confirm(&sure, "deleting an account")?;
            let id = context.account(&account).await?;
            context.client.delete_account(id, ANY).await?;
            context.tell(&())
        }
    }
}

pub async fn plan(context: &Context, command: Plan) -> Result<()> {
    match command {
        Plan::List => context.list(&every!(context, every_plans, ListPlansQuery), &PLANS),
        Plan::Create {
            name,
            file: limits,
            reseller,
        } => {
            let limits = file(&limits)?;
            let wish = CreatePlan {
                name,
                limits,
                reseller,
            };
            let answer = context.client.create_plan(&new_key(), &wish).await?;
            context.tell(&answer)
        }
    }
}

pub async fn token(context: &Context, command: Token) -> Result<()> {
    match command {
        Token::List => context.list(&every!(context, every_tokens, ListTokensQuery), &TOKENS),
        Token::Create {
            name,
            role,
            account,
            reseller,
            site,
            scope,
            ttl,
        } => {
            let wish = CreateToken {
                name,
                role: match role {
                    RoleName::Provider => TokenRole::Provider,
                    RoleName::AccountOwner => TokenRole::AccountOwner,
                    RoleName::Reseller => TokenRole::Reseller,
                },
                account,
                reseller,
                sites: Some(site).filter(|sites| !sites.is_empty()),
                scopes: scope.into_iter().map(scope_of).collect(),
                ttl_s: ttl,
            };
            let answer = context.client.create_token(&new_key(), &wish).await?;
            context.tell(&answer)
        }
        Token::Revoke { token } => {
            context.client.revoke_token(token, ANY).await?;
            context.tell(&())
        }
    }
}

fn scope_of(name: ScopeName) -> Scope {
    match name {
        ScopeName::Read => Scope::Read,
        ScopeName::Deploy => Scope::Deploy,
        ScopeName::Manage => Scope::Manage,
        ScopeName::Billing => Scope::Billing,
    }
}
