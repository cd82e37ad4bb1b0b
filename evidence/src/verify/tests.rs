mod genuine;
mod log;
mod snp;
mod tdx;
