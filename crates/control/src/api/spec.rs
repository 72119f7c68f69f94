//! The description of the API, OpenAPI 3.1; `openapi/v1.json` holds it as it was agreed.

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Required, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// What the document begins with.
pub fn head() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(bearer))
        .schema(undine_api::Problem::name(), undine_api::Problem::schema())
        .build();
    let info = InfoBuilder::new()
        .title("Undine")
        .version("1")
        .description(Some(
            "Web hosting that no single machine can take down. Times are milliseconds since \
             1970. Errors are problem details (RFC 9457) with the field and what to do.",
        ))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new(
            "token",
            Vec::<String>::new(),
        )]))
        .build()
}

/// What is posted to a thing that is there, and so names the version that it is about.
const POSTS_THAT_CHANGE: &[&str] = &[
    "accept_loss",
    "adopt",
    "install_app",
    "restart_server",
    "restart_site",
    "restore_site",
    "retry_site",
    "rollback",
    "scrub_server",
    "start_server",
    "stop_server",
    "suspend_account",
    "suspend_reseller",
    "suspend_site",
    "unsuspend_account",
    "unsuspend_reseller",
    "unsuspend_site",
];

/// The whole document.
pub fn document() -> OpenApi {
    let (_, mut document) = super::described().split_for_parts();
    for item in document.paths.paths.values_mut() {
        for (operation, changes, creates) in [
            (item.get.as_mut(), false, false),
            (item.put.as_mut(), true, false),
            (item.patch.as_mut(), true, false),
            (item.delete.as_mut(), true, false),
            (item.post.as_mut(), false, true),
        ] {
            if let Some(operation) = operation {
                let id = operation.operation_id.as_deref().unwrap_or_default();
                let changes = changes || POSTS_THAT_CHANGE.contains(&id);
                finish(operation, changes, creates);
            }
        }
    }
    document
}

/// What every path has in common.
fn finish(operation: &mut Operation, changes: bool, creates: bool) {
    let problem = ResponseBuilder::new()
        .description("What went wrong, in which field, and what to do.")
        .content(
            "application/problem+json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build(),
        )
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), RefOr::T(problem));
    let parameters = operation.parameters.get_or_insert_default();
    if changes {
        parameters.push(RefOr::T(if_match()));
    }
    if creates {
        parameters.push(RefOr::T(header(
            "Idempotency-Key",
            Required::False,
            "Makes the request safe to send again: the first one does the work, later ones get its answer.",
        )));
    }
    if parameters.is_empty() {
        operation.parameters = None;
    }
}

fn if_match() -> Parameter {
    header(
        "If-Match",
        Required::True,
        "The ETag of what is to be changed; `*` takes any version.",
    )
}

fn header(name: &str, required: Required, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .build()
}
