//! Nodes, edges, control's instances, join tokens, profiles, images, the catalogue.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::{NodeId, Slug};
use undine_store::JoinTokenId;

use super::extract::{
    Asked, Body, Gone, IfMatch, NamedQuery, PageQuery, PathId, Provider, ProviderReader, Reader,
};
use super::reply::{Answer, Reply};
use crate::app::{capacity, catalogue, cluster, nodes, what_if as imagined};
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_nodes))
        .routes(routes!(get_node, update_node, remove_node))
        .routes(routes!(fence_node))
        .routes(routes!(set_node_bmc, unset_node_bmc))
        .routes(routes!(list_edges))
        .routes(routes!(list_instances))
        .routes(routes!(list_join_tokens, create_join_token))
        .routes(routes!(get_join_token, delete_join_token))
        .routes(routes!(list_profiles))
        .routes(routes!(get_profile, put_profile, delete_profile))
        .routes(routes!(list_images))
        .routes(routes!(list_apps))
        .routes(routes!(get_capacity))
        .routes(routes!(what_if))
}

/// Lists the hardware nodes.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    params(NamedQuery),
    responses((status = 200, description = "Here it is.", body = List<Node>))
)]
async fn list_nodes(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(asked): Asked<NamedQuery>,
) -> Answer<List<Node>> {
    let (page, name) = asked.split();
    nodes::all(&control, &page, name).await.map(Reply::ok)
}

/// Shows a hardware node.
#[utoipa::path(
    get,
    path = "/v1/nodes/{id}",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    responses((status = 200, description = "Here it is.", body = Node))
)]
async fn get_node(
    _: ProviderReader,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
) -> Answer<Node> {
    let node = nodes::get(&control, id).await?;
    Ok(Reply::at(node.version, node))
}

/// Takes a node out of use for new servers, or back into it.
#[utoipa::path(
    patch,
    path = "/v1/nodes/{id}",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    request_body = UpdateNode,
    responses((status = 200, description = "Here it is.", body = Node))
)]
async fn update_node(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateNode>,
) -> Answer<Node> {
    let node = nodes::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(node.version, node))
}

/// Removes a node that holds nothing any more.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{id}",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    responses((status = 202, description = "It is being worked on.", body = Operation))
)]
async fn remove_node(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
    IfMatch(expected): IfMatch,
) -> Answer<Operation> {
    let operation = nodes::remove(&control, &caller, id, expected).await?;
    Ok(Reply::accepted(None, operation))
}

/// Declares a node dead that control does not dare to: its servers come up elsewhere.
#[utoipa::path(
    post,
    path = "/v1/nodes/{id}/fence",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    request_body = FenceNode,
    responses((status = 200, description = "It is fenced.", body = Node))
)]
async fn fence_node(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
    Body(wish): Body<FenceNode>,
) -> Answer<Node> {
    let node = nodes::fence(&control, &caller, id, wish).await?;
    Ok(Reply::at(node.version, node))
}

/// Says how a node's power is cut when it is dead.
#[utoipa::path(
    put,
    path = "/v1/nodes/{id}/bmc",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    request_body = SetBmc,
    responses((status = 200, description = "It is known now.", body = Node))
)]
async fn set_node_bmc(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<SetBmc>,
) -> Answer<Node> {
    let node = nodes::set_bmc(&control, &caller, id, expected, Some(wish)).await?;
    Ok(Reply::at(node.version, node))
}

/// Forgets how a node's power is cut.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{id}/bmc",
    tag = "nodes",
    params(("id" = NodeId, Path, description = "The node.")),
    responses((status = 200, description = "It is forgotten.", body = Node))
)]
async fn unset_node_bmc(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<NodeId>,
    IfMatch(expected): IfMatch,
) -> Answer<Node> {
    let node = nodes::set_bmc(&control, &caller, id, expected, None).await?;
    Ok(Reply::at(node.version, node))
}

/// Lists the edges.
#[utoipa::path(
    get,
    path = "/v1/edges",
    tag = "cluster",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Edge>))
)]
async fn list_edges(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Edge>> {
    cluster::edges(&control, &page.into()).await.map(Reply::ok)
}

/// Lists the instances of control.
#[utoipa::path(
    get,
    path = "/v1/instances",
    tag = "cluster",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Instance>))
)]
async fn list_instances(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Instance>> {
    cluster::instances(&control, &page.into())
        .await
        .map(Reply::ok)
}

/// Lists the join tokens.
#[utoipa::path(
    get,
    path = "/v1/join-tokens",
    tag = "cluster",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<JoinToken>))
)]
async fn list_join_tokens(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<JoinToken>> {
    cluster::join_tokens(&control, &page.into())
        .await
        .map(Reply::ok)
}

/// Makes a join token; it is shown once.
#[utoipa::path(
    post,
    path = "/v1/join-tokens",
    tag = "cluster",
    request_body = CreateJoinToken,
    responses((status = 201, description = "It was made.", body = NewJoinToken))
)]
async fn create_join_token(
    Provider(caller): Provider,
    State(control): State<Control>,
    Body(wish): Body<CreateJoinToken>,
) -> Answer<NewJoinToken> {
    let made = cluster::create_join_token(&control, &caller, wish).await?;
    Ok(Reply::made(made.join_token.version, made))
}

/// Shows a join token, without its secret.
#[utoipa::path(
    get,
    path = "/v1/join-tokens/{id}",
    tag = "cluster",
    params(("id" = String, Path, description = "The join token.")),
    responses((status = 200, description = "Here it is.", body = JoinToken))
)]
async fn get_join_token(
    _: ProviderReader,
    State(control): State<Control>,
    PathId(id): PathId<JoinTokenId>,
) -> Answer<JoinToken> {
    let token = cluster::join_token(&control, id).await?;
    Ok(Reply::at(token.version, token))
}

/// Takes a join token back.
#[utoipa::path(
    delete,
    path = "/v1/join-tokens/{id}",
    tag = "cluster",
    params(("id" = String, Path, description = "The join token.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_join_token(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<JoinTokenId>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    cluster::delete_join_token(&control, &caller, id, expected)
        .await
        .map(|()| Gone)
}

/// Lists the profiles.
#[utoipa::path(
    get,
    path = "/v1/profiles",
    tag = "catalogue",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Profile>))
)]
async fn list_profiles(
    _: Reader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Profile>> {
    catalogue::profiles(&control, &page.into())
        .await
        .map(Reply::ok)
}

/// Shows a profile.
#[utoipa::path(
    get,
    path = "/v1/profiles/{name}",
    tag = "catalogue",
    params(("name" = String, Path, description = "The profile.")),
    responses((status = 200, description = "Here it is.", body = Profile))
)]
async fn get_profile(
    _: Reader,
    State(control): State<Control>,
    PathId(name): PathId<Slug>,
) -> Answer<Profile> {
    let profile = catalogue::profile(&control, &name).await?;
    Ok(Reply::at(profile.version, profile))
}

/// Lists the images.
#[utoipa::path(
    get,
    path = "/v1/images",
    tag = "catalogue",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Image>))
)]
async fn list_images(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Image>> {
    catalogue::images(&control, &page.into())
        .await
        .map(Reply::ok)
}

/// Lists the applications of the catalogue.
#[utoipa::path(
    get,
    path = "/v1/apps",
    tag = "catalogue",
    responses((status = 200, description = "Here it is.", body = List<App>))
)]
async fn list_apps(_: Reader, State(control): State<Control>) -> Answer<List<App>> {
    catalogue::apps(&control).await.map(Reply::ok)
}

/// Tells what the cluster holds and what is left.
#[utoipa::path(
    get,
    path = "/v1/capacity",
    tag = "cluster",
    responses((status = 200, description = "Here it is.", body = Capacity))
)]
async fn get_capacity(_: ProviderReader, State(control): State<Control>) -> Answer<Capacity> {
    capacity::capacity(&control).await.map(Reply::ok)
}

/// Puts a profile in, or renews it: a JSON of its definition with its templates. Servers that run
/// get it within seconds.
#[utoipa::path(
    put,
    path = "/v1/profiles/{name}",
    tag = "catalogue",
    params(("name" = String, Path, description = "The profile.")),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "Here it is.", body = Profile))
)]
async fn put_profile(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(name): PathId<Slug>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<undine_manifest::Profile>,
) -> Answer<Profile> {
    let profile = catalogue::update_profile(&control, &caller, &name, expected, wish).await?;
    Ok(Reply::at(profile.version, profile))
}

/// Removes a profile that no server has.
#[utoipa::path(
    delete,
    path = "/v1/profiles/{name}",
    tag = "catalogue",
    params(("name" = String, Path, description = "The profile.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_profile(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(name): PathId<Slug>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    catalogue::delete_profile(&control, &caller, &name, expected)
        .await
        .map(|()| Gone)
}

/// Tells what changes would lead to; none of them is made.
#[utoipa::path(
    post,
    path = "/v1/capacity/what-if",
    tag = "cluster",
    request_body = WhatIf,
    responses((status = 200, description = "Here it is.", body = WhatIfAnswer))
)]
async fn what_if(
    _: Provider,
    State(control): State<Control>,
    Body(wish): Body<WhatIf>,
) -> Answer<WhatIfAnswer> {
    imagined::what_if(&control, wish).await.map(Reply::ok)
}
