package policy

import rego.v1

# Resources go to every guest whose evidence verified, but for sample evidence, which proves nothing.
default allow := false

allow if {
	data.plugin == "resource"
	input.submods.cpu0["ear.veraison.annotated-evidence"]
	not sample
}

sample if _ := input.submods.cpu0["ear.veraison.annotated-evidence"].sample
