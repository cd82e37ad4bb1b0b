package agent_policy

# What an operator allows the host, in short; genpolicy writes longer ones. Whatever is not here is denied.

default AuditHeadRequest := true

default AuditReadRequest := true

default CopyFileRequest := true

default CreateSandboxRequest := true

default GetMetricsRequest := true

default RemoveContainerRequest := true

# By this rule alone the host could replace the policy. In a confidential guest bound initdata has to list the text as well.
default SetPolicyRequest := true

default SignalProcessRequest := true

default StartContainerRequest := true

default UpdateInterfaceRequest := true

default WaitProcessRequest := true

default ExecProcessRequest := false

default ReadStreamRequest := false

default CreateContainerRequest := false

# Container 0: by its program and its name. Nothing is said of its root: that is for the guest to verify.
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": 0}]} if {
	input.OCI.Process.Args == ARGS
	input.OCI.Annotations["io.kubernetes.cri.container-name"] == "server"
}

# Container 1: the same on an image that the guest pulls. Which images it pulls is for cdh.toml to say.
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": 1}]} if {
	input.OCI.Process.Args == ARGS
	input.OCI.Annotations["io.kubernetes.cri.container-name"] == "pulled"
}
