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
        read(&body).map(Input)
    }
}

/// What a request says.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::usage(format!("cannot understand the request: {error}")).hint(OTHER_VERSION)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mielin_fuzz::{Seed, Target};
    use serde::Serialize;

    use super::*;
    use crate::api;

    /// The JSON of every request that has one. Only its user can open the socket, but what is in a request may be
    /// anything.
    const API: Target = Target {
        name: "api",
        mutations: 10_000,
        fixed_bytes: 16 << 10,
        bytes_per_byte: 128,
        run: |body| {
            let read = [
                comes_back::<api::TokenRequest>(body),
                comes_back::<api::Approval>(body),
                comes_back::<api::Revoke>(body),
                comes_back::<api::Ping>(body),
                comes_back::<api::Lookup>(body),
                comes_back::<api::Spawn>(body),
                comes_back::<api::Message>(body),
                comes_back::<api::Migrate>(body),
            ];
            read.contains(&true)
        },
        seeds: || {
            let spawn = serde_json::to_vec(&api::Spawn {
                module: b"\0asm".to_vec(),
                name: Some("a".to_owned()),
                args: vec!["b".to_owned()],
                env: vec![("C".to_owned(), "d".to_owned())],
                allow: vec!["clock".to_owned()],
                ..api::Spawn::default()
            });
            let spawn = spawn.unwrap();
            vec![
                Seed::bad("cut-off", &spawn[..spawn.len() - 1]),
                Seed::good("spawn", spawn),
                Seed::good("token", r#"{"role":"edge","ttl_s":3600,"uses":2}"#),
                Seed::good("node", r#"{"node":"home","reason":""}"#),
                Seed::good("lookup", r#"{"agent":"counter"}"#),
                Seed::good("message", r#"{"payload":"YQ==","wait_ms":null}"#),
                Seed::good("migrate", r#"{"node":"home","strategy":"auto"}"#),
                Seed::bad("no-base-64", r#"{"payload":"Y"}"#),
                Seed::bad("nothing", "{}"),
                Seed::bad("deep", "[".repeat(2_000)),
            ]
        },
    };

    /// Whether it is such a request, which then is written to the same.
    fn comes_back<T: DeserializeOwned + Serialize>(body: &[u8]) -> bool {
        let Ok(request) = read::<T>(body) else {
            return false;
        };
        let written = serde_json::to_value(&request).unwrap();
        let again: T = read(written.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), written);
        true
    }

    #[test]
    fn api() {
        API.replay();
    }
}
