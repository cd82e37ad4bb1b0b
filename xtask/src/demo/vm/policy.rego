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

# Containers by their programs and names. Nothing is said of their roots: those are for the guest to verify, and which images it pulls is for
# cdh.toml to say.
containers := CONTAINERS

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": container.index}]} if {
	container := containers[input.OCI.Annotations["io.kubernetes.cri.container-name"]]
	input.OCI.Process.Args == container.args
}
