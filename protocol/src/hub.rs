//! Every method of the Confidential Data Hub's socket: a closed list, with limits in front of the generated decoders.
//!
//! Upstream declares `WrapKey` and nobody serves it in a guest: it is not in the list, and unknown to peers.

use std::collections::HashMap;

use async_trait::async_trait;
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Request, Response};

use crate::limits::{FLAT, LimitError, Shape, hub};

pub use crate::limits::hub::{KEY_REQUEST_BYTES, SEALED_SECRET_BYTES};

/// What every error of the hub begins with, as upstream's.
pub const ERROR_PREFIX: &str = "[CDH] [ERROR]: ";

macro_rules! methods {
    ($($name:ident, $service:literal, $shape:expr;)+) => {
        /// A method. Its name is the one on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names of the wire; what they do is in the .proto files")]
        pub enum HubMethod {
            $($name,)+
        }

        impl HubMethod {
            /// All of them.
            pub const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$name),+];

            /// The service on the wire.
            #[must_use]
            pub const fn service(self) -> &'static str {
                match self {
                    $(Self::$name => $service,)+
                }
            }

            /// The method on the wire.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            fn shape(self) -> &'static Shape {
                match self {
                    $(Self::$name => &$shape,)+
                }
            }
        }
    };
}

methods! {
    UnsealSecret, "api.SealedSecretService", hub::UNSEAL_SECRET;
    GetResource, "api.GetResourceService", FLAT;
    SecureMount, "api.SecureMountService", hub::SECURE_MOUNT;
    PullImage, "api.ImagePullService", FLAT;
    UnWrapKey, "keyprovider.KeyProviderService", hub::UNWRAP_KEY;
    Land, "innerkeep.ArtifactService", FLAT;
    Status, "innerkeep.ArtifactService", FLAT;
    Open, "innerkeep.ArtifactService", FLAT;
    Release, "innerkeep.ArtifactService", FLAT;
}

impl HubMethod {
    /// The method of a service, by their names on the wire.
    #[must_use]
    pub fn find(service: &str, method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.method() == method && known.service() == service)
    }

    /// Whether a payload is a request within its limits. Takes no memory.
    ///
    /// # Errors
    /// `REQUEST_…`: all of [`LimitError`] but `Undecodable`.
    pub fn check(self, payload: &[u8]) -> Result<(), LimitError> {
        self.shape().check(payload)
    }
}

/// A method whose payload is checked before it is decoded.
struct Admitted {
    method: HubMethod,
    inner: Box<dyn MethodHandler + Send + Sync>,
}

#[async_trait]
impl MethodHandler for Admitted {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        // GUARD: hub-within-limits -> evil_peer_many_empty_options
        if let Err(error) = self.method.check(&request.payload) {
            return Ok(refused(error));
        }
        // What a handler refuses is an answer of it. An error is a payload that it could not decode.
        let answer = self.inner.handler(context, request).await;
        Ok(answer.unwrap_or_else(|_| refused(LimitError::Undecodable)))
    }
}

fn refused(error: LimitError) -> Response {
    let text = format!("{ERROR_PREFIX}{}: {error}", error.code());
    Response { status: Some(ttrpc::get_status(Code::INVALID_ARGUMENT, text)).into(), ..Response::new() }
}

/// The same services, each request within its limits before it is decoded. Methods that are no [`HubMethod`] are not served.
#[must_use]
pub fn admitted(services: HashMap<String, Service>) -> HashMap<String, Service> {
    let serve = |(name, service): (String, Service)| {
        let known = service.methods.into_iter().filter_map(|(method, inner)| {
            let known = HubMethod::find(&name, &method)?;
            let admitted = Admitted { method: known, inner };
            Some((method, Box::new(admitted) as Box<dyn MethodHandler + Send + Sync>))
        });
        let methods = known.collect();
        (name, Service { methods, streams: HashMap::new() })
    };
    services.into_iter().map(serve).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use protobuf::Message as _;
    use protobuf::reflect::{FileDescriptor, RuntimeFieldType};

    use super::*;
    use crate::api::{SecureMountRequest, SecureMountResponse, SecureMountService};
    use crate::generated::{api, artifact, keyprovider};
    use crate::keyprovider::KeyProviderService;

    fn files() -> [&'static FileDescriptor; 3] {
        [api::file_descriptor(), keyprovider::file_descriptor(), artifact::file_descriptor()]
    }

    #[test]
    fn every_declared_method_but_wrap_key_is_served() {
        let mut declared = Vec::new();
        for file in files() {
            for service in file.services() {
                for method in service.methods() {
                    let name = format!("{}.{}", file.proto().package(), service.proto().name());
                    let found = HubMethod::find(&name, method.proto().name());
                    assert_eq!(found.is_none(), method.proto().name() == "WrapKey", "{name}");
                    declared.extend(found);
                }
            }
        }
        assert_eq!(declared.len(), HubMethod::ALL.len());
    }

    #[test]
    fn every_list_of_a_request_has_a_limit() {
        for file in files() {
            for method in file.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
                let Some(known) = HubMethod::ALL.into_iter().find(|it| it.method() == method.proto().name())
                else {
                    continue;
                };
                for field in method.input_type().fields() {
                    let listed = !matches!(field.runtime_field_type(), RuntimeFieldType::Singular(_));
                    let number = u8::try_from(field.number()).unwrap();
                    let many = [number << 3 | 2, 0].repeat(65);
                    assert_eq!(
                        known.check(&many).is_err(),
                        listed || field.name() == "secret" || known == HubMethod::UnWrapKey,
                        "{}",
                        field.name()
                    );
                }
            }
        }
    }

    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl SecureMountService for Counting {
        async fn secure_mount(
            &self,
            _: &TtrpcContext,
            _: SecureMountRequest,
        ) -> ttrpc::Result<SecureMountResponse> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(SecureMountResponse::new())
        }
    }

    #[async_trait]
    impl KeyProviderService for Counting {}

    fn context() -> TtrpcContext {
        TtrpcContext {
            mh: ttrpc::MessageHeader::new_request(1, 0),
            metadata: HashMap::new(),
            timeout_nano: 0,
            connection_data: Arc::default(),
        }
    }

    async fn code(service: &Service, payload: Vec<u8>) -> Code {
        let method = service.methods.get("SecureMount").unwrap();
        let request = Request { payload, ..Request::new() };
        method.handler(context(), request).await.unwrap().status.code()
    }

    #[tokio::test]
    async fn evil_peer_many_empty_options() {
        let counting = Arc::new(Counting::default());
        let mut services = admitted(crate::api::create_secure_mount_service(Arc::clone(&counting) as _));
        let service = services.remove("api.SecureMountService").unwrap();
        let request = SecureMountRequest { mount_point: "/run/x".to_owned(), ..Default::default() };
        assert_eq!(code(&service, request.write_to_bytes().unwrap()).await, Code::OK);
        assert_eq!(code(&service, [0x12, 0].repeat(65)).await, Code::INVALID_ARGUMENT);
        assert_eq!(code(&service, [0x1a, 0].repeat(1 << 20)).await, Code::INVALID_ARGUMENT);
        assert_eq!(code(&service, vec![0x22, 1, 0xff]).await, Code::INVALID_ARGUMENT, "no UTF-8");
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn wrap_key_is_not_served() {
        let services =
            admitted(crate::keyprovider::create_key_provider_service(Arc::new(Counting::default())));
        let service = services.get("keyprovider.KeyProviderService").unwrap();
        assert_eq!(service.methods.keys().collect::<Vec<_>>(), ["UnWrapKey"]);
    }
}
