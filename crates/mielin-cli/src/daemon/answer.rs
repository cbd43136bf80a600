//! Requests read and failures answered in the control API's own form.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::failure::{Class, ErrorDocument, Failure};

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.class {
            Class::Usage => StatusCode::BAD_REQUEST,
            Class::Refused => StatusCode::CONFLICT,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::Unreachable => StatusCode::GATEWAY_TIMEOUT,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorDocument { error: self })).into_response()
    }
}

/// Why a command and its daemon may not understand each other.
pub(super) const OTHER_VERSION: &str = "is the daemon of another version? Restart it with this one";

/// A JSON body, whatever content type it claims.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                Failure::refused(format!(
                    "the request was not read: {}",
                    rejection.body_text()
                ))
                .hint("a module has at most 64 MiB, its input 48 MiB")
            })?;
        serde_json::from_slice(&body).map(Input).map_err(|error| {
            Failure::usage(format!("cannot understand the request: {error}")).hint(OTHER_VERSION)
        })
    }
}
