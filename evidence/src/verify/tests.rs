mod genuine;
mod log;
mod presentation;
mod snp;
mod tdx;
