//! Emulated TEE: configfs-tsm, measurement files, event log, for laptops and tests.
