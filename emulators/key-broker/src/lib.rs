//! Emulated key broker: the KBS protocol of Trustee, for laptops and tests.
