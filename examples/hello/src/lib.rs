//! The smallest useful plugin: one public route, one setting, no needs. To begin your own, take this file; the page "Your first plugin" has the `Cargo.toml`.
//!
//! `GET /hello/NAME` answers with a greeting; `POST /hello` takes the name from a form.

use bulkhead_sdk::prelude::*;

struct Hello;

impl Plugin for Hello {
    fn describe() -> Manifest {
        Manifest::new("hello", env!("CARGO_PKG_VERSION"), "Greets by name")
            .mount("/hello")
            .route(get("/hello/:name").public(), hello)
            .route(post("/hello"), hello)
            .setting(Setting::text("greeting", "The word before the name").default("Hello"))
    }
}

bulkhead_sdk::export_feature!(Hello);

fn hello(request: &Request) -> Result<String, Failure> {
    let name = request
        .text("name")
        .ok_or_else(|| Failure::bad_request("Whom shall I greet?"))?;
    let greeting = settings::text("greeting").unwrap_or_default();
    log::info(format!("greeting {name}"));
    Ok(format!("{greeting}, {name}!\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::Host;

    #[test]
    fn it_greets_by_path_and_by_form() {
        let host = Host::new().setting("greeting", "Hello").install();
        assert_eq!(host.get::<Hello>("/hello/you").text(), "Hello, you!\n");
        assert_eq!(
            host.post_form::<Hello>("/hello", &[("name", "you & me")])
                .text(),
            "Hello, you & me!\n"
        );
    }

    #[test]
    fn without_a_name_it_asks() {
        let host = Host::new().install();
        assert_eq!(host.post_form::<Hello>("/hello", &[]).status(), 400);
    }
}
