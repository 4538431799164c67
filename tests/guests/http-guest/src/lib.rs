//! A component that answers by `wasi:http/incoming-handler@0.2` instead of the feature interface, as one written in another
//! language or moved from another host would. `describe` and `status` stand beside it.

use bulkhead_sdk::prelude::*;

struct HttpGuest;

impl Plugin for HttpGuest {
    fn describe() -> Manifest {
        Manifest::new(
            "http-guest",
            env!("CARGO_PKG_VERSION"),
            "Answers by wasi:http",
        )
        .mount("/http-guest")
        .route(get("/http-guest/*path").public(), unused)
        .route(post("/http-guest/echo").public(), unused)
    }
}

bulkhead_sdk::export_provider!(HttpGuest);

/// Routes of such a plugin are listed for the host's checks; the handler below answers them.
fn unused(_: &Request) -> Failure {
    Failure::internal("this plugin answers by wasi:http")
}

#[cfg(target_arch = "wasm32")]
mod handler {
    use std::io::{Read, Write};

    use wasip2::http::types::{
        Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
    };

    struct Handler;

    impl wasip2::exports::http::incoming_handler::Guest for Handler {
        fn handle(request: IncomingRequest, out: ResponseOutparam) {
            let target = request.path_with_query().unwrap_or_default();
            let answer = match request.method() {
                Method::Post => body_of(&request),
                _ => format!("wasi:http saw {target}\n").into_bytes(),
            };
            let response = OutgoingResponse::new(Fields::new());
            if target.ends_with("/refused") {
                let _ = response.set_status_code(422);
            }
            let body = response.body();
            ResponseOutparam::set(out, Ok(response));
            let Ok(body) = body else { return };
            if let Ok(mut stream) = body.write() {
                let _ = stream.write_all(&answer);
                let _ = stream.flush();
            }
            let _ = OutgoingBody::finish(body, None);
        }
    }

    fn body_of(request: &IncomingRequest) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(body) = request.consume()
            && let Ok(mut stream) = body.stream()
        {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    }

    wasip2::http::proxy::export!(Handler);
}
