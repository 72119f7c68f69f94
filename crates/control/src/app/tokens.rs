//! API tokens: made with their secret shown once, kept as its hash only.

use serde_json::json;
use undine_api::public::{CreateToken, List, NewToken, Scope, Token, TokenRole, WhoAmI};
use undine_model::TokenId;
use undine_store::{Db, Role, TokenFilter, Tx};

use super::caller::{Caller, Expected, scope_word};
use super::paging::{PageWish, list};
use super::{accounts, resellers};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::{Control, PROGRAM};
use crate::refusal::{Refusal, Result};

/// What secrets of tokens begin with, so that scanners for leaked secrets find them.
const PREFIX: &str = "undine_";

fn show(token: undine_store::Token) -> Token {
    let scope = |word: &String| {
        [Scope::Read, Scope::Deploy, Scope::Manage, Scope::Billing]
            .into_iter()
            .find(|s| scope_word(*s) == word)
    };
    Token {
        id: token.id,
        name: token.name,
        role: match token.role {
            Role::Provider => TokenRole::Provider,
            Role::AccountOwner => TokenRole::AccountOwner,
            Role::Reseller => TokenRole::Reseller,
        },
        account: token.account,
        reseller: token.reseller,
        scopes: token.scopes.iter().filter_map(scope).collect(),
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        revoked_at: token.revoked_at,
        created_at: token.created_at,
        version: token.version,
    }
}

/// A token with its secret, not yet kept.
pub fn fresh(
    name: &str,
    role: Role,
    account: Option<undine_model::AccountId>,
    scopes: Vec<String>,
    expires_at: Option<i64>,
) -> (undine_store::Token, String) {
    let secret = format!("{PREFIX}{}", new_secret());
    let now = now_ms();
    let token = undine_store::Token {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        name: name.to_owned(),
        role,
        account,
        reseller: None,
        scopes,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    (token, secret)
}

/// Who asks.
pub fn who_am_i(control: &Control, caller: &Caller) -> WhoAmI {
    WhoAmI {
        token: show(caller.token.clone()),
        domain: control.cluster.domain.clone(),
        program: PROGRAM.to_owned(),
    }
}

/// One page of the tokens that the caller may see.
pub async fn all(control: &Control, caller: &Caller, wish: &PageWish) -> Result<List<Token>> {
    let filter = TokenFilter {
        account: caller.account().filter(|_| !caller.sells()),
        reseller: caller.reseller(),
        ..TokenFilter::default()
    };
    Ok(list(
        control
            .store
            .tokens()
            .list(&filter, wish.request(false)?)
            .await?,
        show,
    ))
}

fn is_own(caller: &Caller, token: &undine_store::Token) -> bool {
    match (caller.is_provider(), caller.reseller()) {
        (true, _) => true,
        (false, Some(own)) => token.reseller == Some(own),
        (false, None) => token.account == caller.account(),
    }
}

async fn reach(control: &Control, caller: &Caller, id: TokenId) -> Result<undine_store::Token> {
    match control.store.tokens().find(id).await? {
        Some(token) if is_own(caller, &token) => Ok(token),
        Some(_) => Err(caller.stranger(control, "token", &id.to_string()).await),
        None => Err(Refusal::not_found("token", &id.to_string())),
    }
}

/// One token.
pub async fn get(control: &Control, caller: &Caller, id: TokenId) -> Result<Token> {
    Ok(show(reach(control, caller, id).await?))
}

/// Makes a token that may no more than its maker.
pub async fn create(control: &Control, caller: &Caller, wish: CreateToken) -> Result<NewToken> {
    if wish.name.trim().is_empty() || wish.name.chars().count() > 100 {
        return Err(Refusal::invalid(
            "name",
            "A token's name has 1 to 100 characters.",
        ));
    }
    let reseller = match wish.role {
        TokenRole::Reseller => Some(for_reseller(control, caller, &wish).await?),
        _ => None,
    };
    let (role, account) = match wish.role {
        TokenRole::Reseller => (Role::Reseller, None),
        TokenRole::Provider if !caller.is_provider() => {
            return Err(Refusal::forbidden(
                "Only the provider makes tokens for the provider.",
            ));
        }
        TokenRole::Provider if wish.account.is_some() => {
            return Err(Refusal::invalid(
                "account",
                "The provider's tokens reach every account.",
            ));
        }
        TokenRole::Provider => (Role::Provider, None),
        TokenRole::AccountOwner => {
            let account = accounts::meant(control, caller, wish.account.as_deref()).await?;
            (Role::AccountOwner, Some(account.id))
        }
    };
    if let Some(scope) = more_than(caller, &wish.scopes) {
        return Err(Refusal::forbidden(format!(
            "Your token lacks the scope `{scope}` and cannot give it."
        )));
    }
    let scopes = wish
        .scopes
        .iter()
        .map(|scope| scope_word(*scope).to_owned())
        .collect();
    let expires_at = wish.ttl_s.map(|ttl| now_ms() + i64::from(ttl) * 1000);
    let (mut token, secret) = fresh(&wish.name, role, account, scopes, expires_at);
    token.reseller = reseller;
    let tx = control.store.begin().await?;
    tx.tokens().insert(&token).await?;
    caller
        .did(
            &tx,
            "token.create",
            format!("token/{}", token.id),
            account,
            json!({"name": token.name}),
        )
        .await?;
    tx.commit().await?;
    Ok(NewToken {
        token: show(token),
        secret,
    })
}

/// The reseller that a token is to act for.
async fn for_reseller(
    control: &Control,
    caller: &Caller,
    wish: &CreateToken,
) -> Result<undine_model::ResellerId> {
    if !caller.sells() {
        return Err(Refusal::forbidden(
            "Only the provider and the reseller make tokens for a reseller.",
        ));
    }
    if wish.account.is_some() {
        return Err(Refusal::invalid(
            "account",
            "A reseller's tokens reach all its accounts.",
        ));
    }
    let found = resellers::meant(control, caller, wish.reseller.as_deref()).await?;
    found.ok_or_else(|| Refusal::invalid("reseller", "Say for which reseller: its id or name."))
}

/// A scope that the wish has and the caller has not.
fn more_than(caller: &Caller, wished: &[Scope]) -> Option<&'static str> {
    let all = [Scope::Read, Scope::Deploy, Scope::Manage, Scope::Billing];
    let wished = if wished.is_empty() { &all[..] } else { wished };
    wished
        .iter()
        .find(|scope| !caller.has(**scope))
        .map(|scope| scope_word(*scope))
}

/// Revokes a token, at once and for good.
pub async fn revoke(
    control: &Control,
    caller: &Caller,
    id: TokenId,
    expected: Expected,
) -> Result<()> {
    let token = reach(control, caller, id).await?;
    expected.check("token", token.version)?;
    let tx = control.store.begin().await?;
    let mut token = tx.tokens().lock(id).await?;
    token.revoked_at = token.revoked_at.or_else(|| Some(now_ms()));
    tx.tokens().update(&token, now_ms()).await?;
    caller
        .did(
            &tx,
            "token.revoke",
            format!("token/{id}"),
            token.account,
            json!({"name": token.name}),
        )
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Removes a token's row, with its account.
pub(super) async fn forget(tx: &Tx, id: TokenId) -> Result<()> {
    Ok(tx.tokens().delete(id, None).await?)
}
