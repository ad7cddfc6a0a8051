//! The description of the API: made from the routes and the wire types.

use std::collections::BTreeMap;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema::Schema},
};

/// One operation: a method on a path.
#[derive(Clone)]
pub struct Operation {
    /// The method, in lower case.
    pub method: &'static str,
    /// The path with its parameters in braces.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Whether it takes no credential.
    pub open: bool,
    /// Its query parameters.
    pub query: &'static [&'static str],
    /// The type of its body.
    pub body: Option<Shape>,
    /// The type of its answer.
    pub answer: Option<Shape>,
}

/// A wire type.
#[derive(Clone)]
pub struct Shape {
    name: String,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Shape {
    /// Returns the shape of a type.
    #[must_use]
    pub fn of<T: ToSchema>() -> Self {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        Self { name: T::name().into_owned(), schemas }
    }

    /// Returns the shape of a page of a type.
    #[must_use]
    pub fn page_of<T: ToSchema>() -> Self {
        let mut shape = Self::of::<T>();
        shape.name = format!("page:{}", shape.name);
        shape
    }

    fn reference(&self) -> Value {
        let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        match self.name.strip_prefix("page:") {
            Some(name) => json!({
                "type": "object",
                "required": ["items"],
                "properties": { "items": { "type": "array", "items": reference(name) }, "continue": { "type": "string" } },
            }),
            None => reference(&self.name),
        }
    }
}

/// Returns the OpenAPI 3.1 document of these operations.
#[must_use]
pub fn openapi(operations: &[Operation]) -> Value {
    let problem = Shape::of::<titan_api::Problem>();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    let mut paths: Map<String, Value> = Map::new();
    let shapes = operations.iter().flat_map(|operation| operation.body.iter().chain(&operation.answer));
    for (name, schema) in shapes.chain([&problem]).flat_map(|shape| &shape.schemas) {
        schemas.entry(name.clone()).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
    for operation in operations {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = described(operation, &problem);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Titan control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps fleets in the state that was declared for them.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

fn described(operation: &Operation, problem: &Shape) -> Value {
    let content = |shape: &Shape, media_type: &str| json!({ media_type: { "schema": shape.reference() } });
    let parameters: Vec<_> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(
            operation.query.iter().map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })),
        )
        .collect();
    let answer = match &operation.answer {
        Some(shape) => json!({ "description": "Done", "content": content(shape, "application/json") }),
        None => json!({ "description": "Done" }),
    };
    let failed = json!({ "description": "A problem", "content": content(problem, titan_api::problems::MEDIA_TYPE) });
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": { "2XX": answer, "4XX": failed, "5XX": failed },
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(body, "application/json") });
    }
    if operation.open {
        described["security"] = json!([]);
    }
    described
}

/// `GET /docs`: the description as a page that needs nothing from anywhere else.
#[must_use]
pub fn page(operations: &[Operation]) -> Response {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut rows = String::new();
    for operation in operations {
        let shape = |shape: &Option<Shape>| {
            shape.as_ref().map_or_else(String::new, |shape| escape(&shape.name.replace("page:", "list of ")))
        };
        let query: String = operation.query.iter().map(|name| format!(" <small>{name}</small>")).collect();
        rows.push_str(&format!(
            "<tr><td><b class={method}>{}</b></td><td><code>{}</code>{query}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            operation.method.to_uppercase(),
            escape(operation.path),
            escape(operation.summary),
            shape(&operation.body),
            shape(&operation.answer),
            method = operation.method,
        ));
    }
    let html = include_str!("docs.html").replace("{{rows}}", &rows).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], html)
        .into_response()
}
