package policy

import rego.v1

# AR4SI: 2 affirms, 3 affirms what is known by name, 33 to 36 warn, 97 contraindicates.
default hardware := 97

default configuration := 36

default executables := 33

hardware := 2 if {
	input.tdx.tcb_status == "UpToDate"
	input.tdx.collateral_expiration_status == "0"
}

hardware := 2 if input.snp.measurement

configuration := 2 if input.tdx.td_attributes.debug == false

configuration := 2 if input.snp.policy_debug_allowed == false

executables := 3 if input.tdx.quote.body.mr_td in query_reference_value("mr_td")

executables := 3 if input.snp.measurement in query_reference_value("snp_launch_measurement")
