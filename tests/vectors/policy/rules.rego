# Rules of the generated kind: what a policy generator puts in front of `policy_data`, written for tests. They use every
# builtin and every construct that generated policies use, in the shapes in which they use them.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AddARPNeighborsRequest := false
default AddSwapRequest := false
default AllowRequestsFailingPolicy := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default DestroySandboxRequest := true
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default OnlineCPUMemRequest := true
default PauseContainerRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default ReseedRandomDevRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetPolicyRequest := false
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default WaitProcessRequest := true
default WriteStreamRequest := false

# Prefixes of paths that the host shares with the guest.
key_name := "io.kubernetes.cri.sandbox-name"
key_space := "io.kubernetes.cri.sandbox-namespace"
key_network := "nerdctl/network-namespace"
key_type := "io.kubernetes.cri.container-type"
key_kata := "io.katacontainers.pkg.oci.container_type"
key_bundle := "io.katacontainers.pkg.oci.bundle_path"
key_sandbox := "io.kubernetes.cri.sandbox-id"

# --- containers ---------------------------------------------------------------------------------------------------

CreateContainerRequest := {"ops": changes, "allowed": true} if {
    print("create 1: start, hooks =", input.OCI.Hooks)
    is_null(input.OCI.Hooks)
    print("create 1: solaris", input.OCI.Solaris, "windows", input.OCI.Windows)
    is_null(input.OCI.Solaris)
    is_null(input.OCI.Windows)
    is_null(input.OCI.Linux.Seccomp)

    asked := input.OCI
    annotations := asked.Annotations
    name := annotations[key_name]
    space := annotations[key_space]
    network := annotations[key_network]
    print("create 1: name", name, "space", space, "network", network)

    start := keep("sandbox_name", name)
    print("create 1: start =", start)
    second := array.concat(start, keep("namespace", space))
    third := array.concat(second, keep("network_namespace", network))
    print("create 1: third =", third)

    some index, known in policy_data.containers
    print("create 1: trying container", index)

    known.sandbox_pidns == input.sandbox_pidns
    wanted := known.OCI
    print("create 1: version", wanted.Version, "asked", asked.Version)
    wanted.Version == asked.Version
    print("create 1: read-only", wanted.Root.Readonly, "asked", asked.Root.Readonly)
    wanted.Root.Readonly == asked.Root.Readonly

    good_annotations(wanted, asked)
    good_identity(known, asked, name, space)
    good_linux(wanted, asked)
    good_devices(known, input.devices)

    added := {"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": index}
    changes := array.concat(third, [added])
    print("create 1: true, changes =", changes)
}

# The first container of a sandbox decides its name; the others have to have it.
keep(key, value) := [] if {
    stored := data["pstate"][key]
    print("keep 1: stored", stored, "value", value)
    stored == value
    print("keep 1: true")
} else := [{"op": "add", "path": concat("/", ["/pstate", key]), "value": value}] if {
    print("keep 2: first time", key)
    not data["pstate"][key]
    print("keep 2: true")
}

good_annotations(wanted, asked) if {
    print("good_annotations 1: none")
    not asked.Annotations
    print("good_annotations 1: true")
}

good_annotations(wanted, asked) if {
    print("good_annotations 2: wanted", wanted.Annotations)
    keys := [key | some key, _ in asked.Annotations; print("good_annotations 2: key", key)]
    print("good_annotations 2: keys", keys)
    every key in keys {
        print("good_annotations 2: key", key)
        good_annotation(key, wanted, asked)
    }
    print("good_annotations 2: true")
}

good_annotation(key, wanted, asked) if {
    startswith(key, "io.kubernetes.cri.")
    print("good_annotation 1: true")
}

good_annotation(key, wanted, asked) if {
    wanted.Annotations[key] == asked.Annotations[key]
    print("good_annotation 2: true")
}

good_annotation(key, wanted, asked) if {
    print("good_annotation 3:", key)
    key in {key_network, key_bundle, key_kata}
    print("good_annotation 3: true")
}

good_identity(known, asked, name, space) if {
    wanted := known.OCI
    not wanted.Annotations[key_name]
    print("good_identity 1: no name is wanted")
    good_by_name(known, asked, name, space)
    print("good_identity 1: true")
}

good_identity(known, asked, name, space) if {
    wanted := known.OCI
    pattern := wanted.Annotations[key_name]
    print("good_identity 2: pattern", pattern, "name", name)
    regex.match(concat("", ["^", pattern, "$"]), name)
    good_by_name(known, asked, name, space)
    print("good_identity 2: true")
}

good_by_name(known, asked, name, space) if {
    print("good_by_name: start")
    wanted := known.OCI
    wanted_space := wanted.Annotations[key_space]
    print("good_by_name: wanted", wanted_space, "space", space)
    wanted_space == space

    kind := asked.Annotations[key_type]
    wanted.Annotations[key_type] == kind
    good_kind(kind, wanted, asked, name)

    path := asked.Annotations[key_bundle]
    bundle := replace(path, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/", "")
    print("good_by_name: bundle", bundle)
    sandbox := asked.Annotations[key_sandbox]
    regex.match(wanted.Annotations[key_sandbox], sandbox)

    good_root(wanted, asked, bundle)
    every mount in asked.Mounts {
        print("good_by_name: mount", mount)
        good_mount(wanted, mount, bundle, sandbox)
    }
    good_storages(known.storages, input.storages, bundle, sandbox)
    good_process(wanted.Process, asked.Process, name, space)
    print("good_by_name: true")
}

good_kind(kind, wanted, asked, name) if {
    print("good_kind 1:", kind)
    kind == "sandbox"
    asked.Annotations[key_kata] == "pod_sandbox"
    network := asked.Annotations[key_network]
    print("good_kind 1: network", network)
    regex.match("^/var/run/netns/cni-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", network)
    print("good_kind 1: true")
}

good_kind(kind, wanted, asked, name) if {
    print("good_kind 2:", kind)
    kind == "container"
    asked.Annotations[key_kata] == "pod_container"
    own := "io.kubernetes.cri.container-name"
    wanted.Annotations[own] == asked.Annotations[own]
    print("good_kind 2: true")
}

good_root(wanted, asked, bundle) if {
    first := replace(wanted.Root.Path, "$(root_path)", policy_data.common.root_path)
    second := replace(first, "$(cpath)", policy_data.common.cpath)
    third := replace(second, "$(bundle-id)", bundle)
    print("good_root: wanted", third, "asked", asked.Root.Path)
    third == asked.Root.Path
    print("good_root: true")
}

# --- mounts and storages ------------------------------------------------------------------------------------------

good_mount(wanted, mount, bundle, sandbox) if {
    some known in wanted.Mounts
    print("good_mount: known", known)
    same_mount(known, mount, bundle, sandbox)
    print("good_mount: true")
}

same_mount(known, mount, bundle, sandbox) if {
    known == mount
    print("same_mount 1: true")
}

same_mount(known, mount, bundle, sandbox) if {
    known.destination == mount.destination
    known.type_ == mount.type_
    known.options == mount.options
    print("same_mount 2: source", known.source, "asked", mount.source)
    first := replace(known.source, "$(sfprefix)", policy_data.common.sfprefix)
    second := replace(first, "$(cpath)", policy_data.common.cpath)
    third := replace(second, "$(bundle-id)", bundle)
    fourth := replace(third, "$(sandbox-id)", sandbox)
    print("same_mount 2: pattern", fourth)
    regex.match(fourth, mount.source)
    print("same_mount 2: true")
}

same_mount(known, mount, bundle, sandbox) if {
    known.destination == mount.destination
    known.type_ == mount.type_
    left := {option | some option in known.options}
    right := {option | some option in mount.options; print("same_mount 3: option", option)}
    print("same_mount 3: left", left, "right", right)
    left - right == set()
    (right | left) - left == {"relatime"}
    encoded := base64url.encode(mount.source)
    source := concat("/", [policy_data.common.spath, encoded])
    print("same_mount 3: source", source)
    source == replace(known.source, "$(spath)", policy_data.common.spath)
    print("same_mount 3: true")
}

good_storages(known, asked, bundle, sandbox) if {
    expected := count(known)
    found := count(asked)
    print("good_storages: expected", expected, "found", found)
    shared := count([storage | some storage in asked; storage.driver == "ephemeral"])
    print("good_storages: shared", shared)
    expected == found - shared
    every position, storage in asked {
        print("good_storages: position", position, storage)
        good_storage(known, storage, bundle, sandbox)
    }
    print("good_storages: true")
}

good_storage(known, storage, bundle, sandbox) if {
    some wanted in known
    print("good_storage 1: wanted", wanted)
    wanted.driver == storage.driver
    wanted.driver_options == storage.driver_options
    wanted.fs_group == storage.fs_group
    wanted.fstype == storage.fstype
    wanted.options == storage.options
    wanted.shared == storage.shared
    good_source(wanted, storage, bundle)
    good_target(wanted, storage, bundle)
    print("good_storage 1: true")
}

good_storage(known, storage, bundle, sandbox) if {
    some wanted in policy_data.sandbox.storages
    print("good_storage 2: wanted", wanted)
    wanted == storage
    print("good_storage 2: true")
}

good_source(wanted, storage, bundle) if {
    pattern := replace(wanted.source, "$(bundle-id)", bundle)
    print("good_source 1: pattern", pattern)
    regex.match(pattern, storage.source)
    print("good_source 1: true")
}

good_source(wanted, storage, bundle) if {
    wanted.source == "$(b64_device_id)"
    id := base64url.encode(storage.source)
    print("good_source 2: id", id)
    count(id) > 4
    substring(id, 0, 4) == substring(wanted.mount_point, 0, 4)
    print("good_source 2: true")
}

good_target(wanted, storage, bundle) if {
    first := replace(wanted.mount_point, "$(cpath)", policy_data.common.cpath)
    second := replace(first, "$(bundle-id)", bundle)
    print("good_target: pattern", second, "asked", storage.mount_point)
    regex.match(second, storage.mount_point)
    print("good_target: true")
}

# --- process ------------------------------------------------------------------------------------------------------

good_process(wanted, asked, name, space) if {
    print("good_process: terminal", wanted.Terminal, asked.Terminal)
    wanted.Terminal == asked.Terminal
    print("good_process: cwd", wanted.Cwd, asked.Cwd)
    wanted.Cwd == asked.Cwd
    wanted.NoNewPrivileges == asked.NoNewPrivileges
    asked.OOMScoreAdj == 0
    good_user(wanted.User, asked.User)
    good_capabilities(wanted.Capabilities, asked.Capabilities)
    good_arguments(wanted, asked, name)
    good_environment(wanted, asked, name, space)
    print("good_process: true")
}

good_user(wanted, asked) if {
    print("good_user: uid", wanted.UID, asked.UID, "gid", wanted.GID, asked.GID)
    wanted.UID == asked.UID
    wanted.GID == asked.GID
    left := {id | some id in wanted.AdditionalGids}
    right := {id | some id in asked.AdditionalGids}
    print("good_user: additional", left, right)
    left == right
    print("good_user: true")
}

good_capabilities(wanted, asked) if {
    every kind in ["Ambient", "Bounding", "Effective", "Inheritable", "Permitted"] {
        print("good_capabilities: kind", kind)
        same_capabilities(wanted[kind], asked[kind])
    }
    print("good_capabilities: true")
}

same_capabilities(wanted, asked) if {
    wanted == asked
    print("same_capabilities 1: true")
}

same_capabilities(wanted, asked) if {
    count(wanted) == 1
    wanted[0] == "$(default_caps)"
    print("same_capabilities 2: default", policy_data.common.default_caps)
    {cap | some cap in asked} == {cap | some cap in policy_data.common.default_caps}
    print("same_capabilities 2: true")
}

same_capabilities(wanted, asked) if {
    count(wanted) == 1
    wanted[0] == "$(privileged_caps)"
    print("same_capabilities 3: privileged", policy_data.common.privileged_caps)
    asked == policy_data.common.privileged_caps
    print("same_capabilities 3: true")
}

good_arguments(wanted, asked, name) if {
    print("good_arguments 1: none")
    not wanted.Args
    not asked.Args
    print("good_arguments 1: true")
}

good_arguments(wanted, asked, name) if {
    print("good_arguments 2: wanted", wanted.Args, "asked", asked.Args)
    count(wanted.Args) == count(asked.Args)
    every i, argument in asked.Args {
        print("good_arguments 2: i", i, "argument", argument)
        good_argument(wanted.Args[i], argument, name)
    }
    print("good_arguments 2: true")
}

good_argument(wanted, argument, name) if {
    replace(wanted, "$$", "$") == argument
    print("good_argument 1: true")
}

good_argument(wanted, argument, name) if {
    first := replace(wanted, "$$", "$")
    second := replace(first, "$(sandbox-name)", name)
    print("good_argument 2: second", second)
    second == argument
    print("good_argument 2: true")
}

good_argument(wanted, argument, name) if {
    contains(wanted, "$(node-name)")
    print("good_argument 3: true")
}

good_environment(wanted, asked, name, space) if {
    print("good_environment: wanted", wanted.Env, "asked", asked.Env)
    every variable in asked.Env {
        print("good_environment: variable", variable)
        good_variable(wanted, variable, name, space)
    }
    print("good_environment: true")
}

# It is one of the policy's.
good_variable(wanted, variable, name, space) if {
    some known in wanted.Env
    known == variable
    print("good_variable 1: true")
}

# It is one of the policy's with the sandbox's names put in.
good_variable(wanted, variable, name, space) if {
    some known in wanted.Env
    first := replace(known, "$(sandbox-name)", name)
    second := replace(first, "$(sandbox-namespace)", space)
    print("good_variable 2: second", second)
    second == variable
    print("good_variable 2: true")
}

# It is what Kubernetes adds for services.
good_variable(wanted, variable, name, space) if {
    some pattern in policy_data.request_defaults.CreateContainerRequest.allow_env_regex
    first := replace(pattern, "$(ipv4_a)", policy_data.common.ipv4_a)
    second := replace(first, "$(ip_p)", policy_data.common.ip_p)
    third := replace(second, "$(svc_name)", policy_data.common.svc_name_downward_env)
    fourth := replace(third, "$(dns_label)", policy_data.common.dns_label)
    print("good_variable 3: pattern", fourth)
    regex.match(fourth, variable)
    print("good_variable 3: true")
}

# It is the pod's address.
good_variable(wanted, variable, name, space) if {
    parts := split(variable, "=")
    count(parts) == 2
    is_address(parts[1])
    some known in wanted.Env
    pair := split(known, "=")
    count(pair) == 2
    pair[0] == parts[0]
    print("good_variable 4: address of", pair[0])
    pair[1] in ["$(pod-ip)", "$(host-ip)"]
    print("good_variable 4: true")
}

# It is what only the node knows.
good_variable(wanted, variable, name, space) if {
    parts := split(variable, "=")
    count(parts) == 2
    some known in wanted.Env
    pair := split(known, "=")
    count(pair) == 2
    pair[0] == parts[0]
    always := ["$(host-name)", "$(node-name)", "$(pod-uid)", "$(resource-field)", "$(todo-annotation)"]
    some allowed in always
    contains(pair[1], allowed)
    print("good_variable 5: true")
}

is_address(value) if {
    bytes := split(value, ".")
    count(bytes) == 4
    first := to_number(bytes[0])
    first >= 1
    first <= 255
    every byte in array.concat([bytes[1]], [bytes[2], bytes[3]]) {
        print("is_address: byte", byte)
        number := to_number(byte)
        number >= 0
        number <= 255
    }
    print("is_address: true")
}

# --- linux --------------------------------------------------------------------------------------------------------

good_linux(wanted, asked) if {
    print("good_linux: namespaces", wanted.Linux.Namespaces, asked.Linux.Namespaces)
    left := {{"Type": space.Type, "Path": ""} | some space in wanted.Linux.Namespaces}
    right := {{"Type": normal(space.Type), "Path": space.Path} |
        some space in asked.Linux.Namespaces
        print("good_linux: type", space.Type)
        space.Type != "cgroup"
    }
    left == right
    good_paths(wanted.Linux.MaskedPaths, asked.Linux.MaskedPaths)
    good_paths(wanted.Linux.ReadonlyPaths, array.concat(asked.Linux.ReadonlyPaths, asked.Linux.MaskedPaths))
    good_sysctl(wanted.Linux.Sysctl, asked.Linux.Sysctl)
    print("good_linux: true")
}

normal(kind) := "network" if {
    kind == "net"
} else := "mount" if {
    kind == "mnt"
} else := lower(kind) if {
    print("normal 3:", kind)
}

good_paths(wanted, asked) if {
    every path in wanted {
        print("good_paths: path", path)
        some found in asked
        path == found
    }
    print("good_paths: true")
}

good_sysctl(wanted, asked) if {
    count(asked) == 0
    print("good_sysctl 1: true")
}

good_sysctl(wanted, asked) if {
    every key, value in asked {
        print("good_sysctl 2: key", key, "value", value)
        wanted[key] == value
    }
    print("good_sysctl 2: true")
}

good_devices(known, asked) if {
    print("good_devices 1: none")
    count(asked) == 0
    print("good_devices 1: true")
}

good_devices(known, asked) if {
    print("good_devices 2: asked", asked)
    every device in asked {
        some wanted in known.devices
        print("good_devices 2: wanted", wanted)
        wanted.container_path == device.container_path
        wanted.type_ == device.type_
    }
    print("good_devices 2: true")
}

# --- the rest -----------------------------------------------------------------------------------------------------

RemoveContainerRequest := {"ops": changes, "allowed": true} if {
    print("remove: container", input.container_id)
    changes := [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}]
    print("remove: changes", changes)
}

CreateSandboxRequest if {
    print("sandbox: hook", input.guest_hook_path, "modules", input.kernel_modules)
    count(input.guest_hook_path) == 0
    count(input.kernel_modules) == 0
    input.sandbox_pidns == false
    every storage in input.storages {
        print("sandbox: storage", storage)
        some wanted in policy_data.sandbox.storages
        storage == wanted
    }
    print("sandbox: true")
}

CopyFileRequest if {
    print("copy: path", input.path)
    not contains(input.path, "..")
    input.file_type != "Unknown"
    some pattern in policy_data.request_defaults.CopyFileRequest
    first := replace(pattern, "$(sfprefix)", policy_data.common.sfprefix)
    second := replace(first, "$(cpath)", policy_data.common.cpath)
    print("copy: pattern", second)
    regex.match(second, input.path)
    good_link(input)
    good_mode(input.file_mode)
    print("copy: true")
}

good_link(request) if {
    is_null(request.symlink_target)
    print("good_link 1: true")
}

good_link(request) if {
    not startswith(request.symlink_target, "/")
    tail := trim_prefix(request.symlink_target, "..data/")
    not contains(tail, "/")
    print("good_link 2: tail", tail)
    found := regex.find_all_string_submatch_n(`^([A-Za-z0-9_.-]+)$`, tail, -1)
    count(found) == 1
    found[0][1] == tail
    print("good_link 2: true")
}

# Nobody but the owner writes, nothing is set-user-id.
good_mode(mode) if {
    refused := bits.or(bits.or(2048, 1024), 18)
    kept := bits.and(mode, bits.negate(refused))
    print("good_mode: mode", mode, "kept", kept)
    kept == mode
}

ExecProcessRequest if {
    print("exec 1: start")
    input.string_user == null
    input.process.Terminal == false
    some known in policy_data.request_defaults.ExecProcessRequest.allowed_commands
    print("exec 1: known", known)
    input.process.Args == known
    print("exec 1: true")
}

ExecProcessRequest if {
    print("exec 2: start", input.container_id)
    input.string_user == null
    index := data["pstate"][input.container_id]
    print("exec 2: index", index)
    known := policy_data.containers[index]
    some command in known.exec_commands
    print("exec 2: command", command)
    command == input.process.Args
    good_user(known.OCI.Process.User, input.process.User)
    good_capabilities(known.OCI.Process.Capabilities, input.process.Capabilities)
    input.process.NoNewPrivileges == known.OCI.Process.NoNewPrivileges
    print("exec 2: true")
}

ExecProcessRequest if {
    print("exec 3: start")
    line := concat(" ", input.process.Args)
    print("exec 3: line", line)
    some pattern in policy_data.request_defaults.ExecProcessRequest.regex
    regex.match(pattern, line)
    print("exec 3: true")
}

CloseStdinRequest if {
    policy_data.request_defaults.CloseStdinRequest == true
}

ReadStreamRequest if {
    policy_data.request_defaults.ReadStreamRequest == true
}

WriteStreamRequest if {
    policy_data.request_defaults.WriteStreamRequest == true
}

UpdateEphemeralMountsRequest if {
    policy_data.request_defaults.UpdateEphemeralMountsRequest == true
}

UpdateRoutesRequest if {
    print("routes:", input.routes)
    every route in input.routes.Routes {
        not route.device in policy_data.request_defaults.UpdateRoutesRequest.forbidden_device_names
        not concat(" ", [route.source, route.dest]) in policy_data.request_defaults.UpdateRoutesRequest.forbidden_pairs
    }
    print("routes: true")
}

UpdateInterfaceRequest if {
    print("interface:", input.interface)
    is_null(input.interface.IPAddresses[_]) == false
    some name in policy_data.request_defaults.UpdateInterfaceRequest.forbidden_names
    print("interface: forbidden", name)
    input.interface.name != name
    lower(input.interface.hwAddr) == input.interface.hwAddr
    count(split(input.interface.hwAddr, ":")) == 6
    bits.and(input.interface.raw_flags, policy_data.request_defaults.UpdateInterfaceRequest.allow_raw_flags) == input.interface.raw_flags
    print("interface: true")
}

AddARPNeighborsRequest if {
    not any_forbidden(input.neighbors.ARPNeighbors)
    print("neighbors: true")
}

any_forbidden(neighbors) if {
    some i
    neighbors[i].device in policy_data.request_defaults.AddARPNeighborsRequest.forbidden_device_names
    print("any_forbidden: true")
}

any_forbidden(neighbors) if {
    some neighbor in neighbors
    some forbidden in policy_data.request_defaults.AddARPNeighborsRequest.forbidden_cidrs_regex
    print("any_forbidden: address", neighbor.toIPAddress.address)
    regex.match(forbidden, neighbor.toIPAddress.address)
}
