//! All ttrpc services: `.proto`, generated code, typed requests.
