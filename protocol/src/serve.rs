//! Limits in front of the generated decoders.

use std::collections::HashMap;

use async_trait::async_trait;
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Request, Response};

use crate::Endpoint;
use crate::limits::LimitError;
use crate::status::RpcError;

type Handler = Box<dyn MethodHandler + Send + Sync>;

/// A method whose payload is checked before it is decoded.
struct Admitted {
    endpoint: Endpoint,
    inner: Handler,
}

#[async_trait]
impl MethodHandler for Admitted {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        // GUARD: served-within-limits -> evil_host_many_empty_members_over_a_connection
        if let Err(error) = self.endpoint.check(&request.payload) {
            return Ok(refusal(error));
        }
        // What a handler refuses is an answer of it. An error is a payload that it could not decode.
        Ok(self.inner.handler(context, request).await.unwrap_or_else(|_| refusal(LimitError::Undecodable)))
    }
}

/// As an answer: of an error ttrpc makes the code `UNKNOWN`, and a text of what it looks like in the program.
fn refusal(error: LimitError) -> Response {
    let (code, text) = RpcError::from(error).status();
    Response { status: Some(ttrpc::get_status(code, text)).into(), ..Response::new() }
}

/// The same services, each request within its limits before it is decoded. Methods that are no [`Endpoint`] are not served.
#[must_use]
pub fn admitted(services: HashMap<String, Service>) -> HashMap<String, Service> {
    let admit = |service: &str, (method, inner): (String, Handler)| {
        let endpoint = Endpoint::find(service, &method)?;
        Some((method, Box::new(Admitted { endpoint, inner }) as Handler))
    };
    services
        .into_iter()
        .map(|(name, Service { methods, .. })| {
            let methods = methods.into_iter().filter_map(|method| admit(&name, method)).collect();
            (name, Service { methods, streams: HashMap::new() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::agent::{AgentService, CreateContainerRequest, Empty, create_agent_service};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl AgentService for Counting {
        async fn create_container(
            &self,
            _: &TtrpcContext,
            _: CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Empty::new())
        }
    }

    fn context() -> TtrpcContext {
        TtrpcContext {
            mh: ttrpc::MessageHeader::new_request(1, 0),
            metadata: HashMap::new(),
            timeout_nano: 0,
            connection_data: Arc::default(),
        }
    }

    #[tokio::test]
    async fn evil_host_many_empty_members_over_a_connection() {
        let counting = Arc::new(Counting::default());
        let mut services = create_agent_service(Arc::clone(&counting) as _);
        let method = services.get_mut("grpc.AgentService").unwrap();
        let unknown = method.methods.remove("StartContainer").unwrap();
        method.methods.insert("Other".to_owned(), unknown);
        let services = admitted(services);
        let methods = &services["grpc.AgentService"].methods;
        assert!(!methods.contains_key("Other"), "no endpoint");
        assert_eq!(methods.len(), 41);
        let create = &methods["CreateContainer"];
        let call = |payload: Vec<u8>| create.handler(context(), Request { payload, ..Request::new() });
        call(b"\x0a\x02ab".to_vec()).await.unwrap();
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
        let status = call([0x2a, 0].repeat(1025)).await.unwrap().status;
        assert_eq!(status.code(), ttrpc::Code::INVALID_ARGUMENT);
        assert_eq!(status.message(), "REQUEST_COUNT: storages: expected at most 1024 of them");
        // Within the limits, and no text.
        let status = call(b"\x0a\x02\xff\xff".to_vec()).await.unwrap().status;
        assert_eq!(status.code(), ttrpc::Code::INVALID_ARGUMENT);
        assert!(status.message().starts_with("REQUEST_MALFORMED: "), "{}", status.message());
        assert_eq!(counting.0.load(Ordering::Relaxed), 1, "the handler was not reached");
    }
}
