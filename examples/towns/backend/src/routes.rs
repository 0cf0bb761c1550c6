//! The routes and what they answer.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use towns_shared::{Selection, Town};

pub fn make_router(towns: Arc<[Town]>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/api/v1/towns/selection", get(select_towns))
        .with_state(towns)
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(towns): State<Arc<[Town]>>) -> Json<Value> {
    Json(json!({ "status": "ready", "towns": towns.len() }))
}

async fn select_towns(
    State(towns): State<Arc<[Town]>>,
    Query(selection): Query<Selection>,
) -> Response {
    Json(selection.select(&towns)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    async fn request(path: &str) -> (StatusCode, Vec<u8>) {
        let towns: Vec<Town> = serde_json::from_str(crate::TOWNS).unwrap();
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = make_router(towns.into()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, body.to_vec())
    }

    async fn request_names(path: &str) -> Vec<String> {
        let (status, body) = request(path).await;
        assert_eq!(status, StatusCode::OK);
        let towns: Vec<Town> = serde_json::from_slice(&body).unwrap();
        towns.into_iter().map(|town| town.name).collect()
    }

    #[tokio::test]
    async fn probes_answer() {
        assert_eq!(request("/health").await.0, StatusCode::OK);
        assert_eq!(request("/ready").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn selection_is_everything_by_default() {
        assert_eq!(request_names("/api/v1/towns/selection").await.len(), 355);
    }

    #[tokio::test]
    async fn selection_is_filtered_by_country_and_limit() {
        let names = request_names("/api/v1/towns/selection?country=slovenia&limit=2").await;
        assert_eq!(names, ["Ljubljana", "Maribor"]);
    }

    #[tokio::test]
    async fn limit_that_is_not_a_number_is_refused() {
        assert_eq!(
            request("/api/v1/towns/selection?limit=many").await.0,
            StatusCode::BAD_REQUEST
        );
    }
}
