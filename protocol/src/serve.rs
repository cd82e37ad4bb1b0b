//! Limits in front of the generated decoders.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Request, Response};

use crate::Endpoint;
use crate::limits::LimitError;
use crate::status::RpcError;

type Handler = Box<dyn MethodHandler + Send + Sync>;
/// Is told of each request that is not within its limits.
pub type Refused = Arc<dyn Fn(Endpoint, LimitError) + Send + Sync>;

/// A method whose payload is checked before it is decoded.
struct Admitted {
    endpoint: Endpoint,
    inner: Handler,
    refused: Refused,
}

#[async_trait]
impl MethodHandler for Admitted {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        // GUARD: served-within-limits -> evil_host_many_empty_members_over_a_connection
        if let Err(error) = self.endpoint.check(&request.payload) {
            return Ok(self.refuse(error));
        }
        // What a handler refuses is an answer of it. An error is a payload that it could not decode.
        let answer = self.inner.handler(context, request).await;
        Ok(answer.unwrap_or_else(|_| self.refuse(LimitError::Undecodable)))
    }
}

impl Admitted {
    /// As an answer: of an error ttrpc makes the code `UNKNOWN`, and a text of what it looks like in the program.
    fn refuse(&self, error: LimitError) -> Response {
        (self.refused)(self.endpoint, error);
        let (code, text) = RpcError::from(error).status();
        Response { status: Some(ttrpc::get_status(code, text)).into(), ..Response::new() }
    }
}

/// The same services, each request within its limits before it is decoded; `refused` is told of the others. Methods that are no [`Endpoint`]
/// are not served.
#[must_use]
pub fn admitted(services: HashMap<String, Service>, refused: &Refused) -> HashMap<String, Service> {
    let admit = |service: &str, (method, inner): (String, Handler)| {
        let endpoint = Endpoint::find(service, &method)?;
        Some((method, Box::new(Admitted { endpoint, inner, refused: Arc::clone(refused) }) as Handler))
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
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let refused: Refused =
            Arc::new(move |endpoint, error| tell.lock().unwrap().push((endpoint, error.code())));
        let services = admitted(services, &refused);
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
        let both = ["REQUEST_COUNT", "REQUEST_MALFORMED"].map(|code| (Endpoint::CreateContainer, code));
        assert_eq!(*told.lock().unwrap(), both);
    }
}
