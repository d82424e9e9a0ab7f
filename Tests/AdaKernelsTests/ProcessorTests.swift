#if os(Linux)
import AdaKernels
import Foundation
import Testing

/// A made-up machine: files under a folder of their own.
private final class FileTree {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent("ada-processors-\(UUID().uuidString)")

    init(_ files: [String: String]) throws {
        for (path, text) in files {
            let file = root.appendingPathComponent(path)
            try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: file, atomically: false, encoding: .utf8)
        }
    }

    deinit { try? FileManager.default.removeItem(at: root) }

    var quota: Int32 { ak_processor_quota(root.path) }
}

struct ProcessorTests {
    private static let v2Mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    private static let v1Mounts = """
        25 20 0:21 / /proc rw - proc proc rw
        31 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct

        """

    // A failure means that a container which may use two processors of 64 gets 64 threads, which wait for each other most of the time.
    @Test("quotas are rounded up", arguments: [("150000 100000", 2), ("100000 100000", 1), ("1000 100000", 1), ("400000 100000", 4), ("max 100000", 0), ("max", 0), ("", 0), ("-1 100000", 0), ("5 0", 0)])
    func quotasAreRoundedUp(text: String, expected: Int32) throws {
        let tree = try FileTree([
            "proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": Self.v2Mount, "sys/fs/cgroup/a/b/cpu.max": text + "\n",
        ])
        #expect(tree.quota == expected)
    }

    // A failure means that a quota of a whole pod or slice is overlooked.
    @Test("CPU quotas of parent groups count") func parentsCount() throws {
        let tree = try FileTree([
            "proc/self/cgroup": "0::/slice/pod/container\n", "proc/self/mountinfo": Self.v2Mount, "sys/fs/cgroup/slice/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/slice/pod/cpu.max": "max 100000\n", "sys/fs/cgroup/slice/pod/container/cpu.max": "800000 100000\n", "cpu.max": "100000 100000\n",
            "sys/fs/cpu.max": "100000 100000\n",
        ])
        #expect(tree.quota == 3)
    }

    // A failure means that quotas of Docker on older systems are overlooked.
    @Test("version 1 and its parents count") func version1AndItsParentsCount() throws {
        let group = "12:cpuset:/c\n7:cpu,cpuacct:/docker/abc\n0::/x\n"
        let quota = "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", period = "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us"
        #expect(try FileTree(["proc/self/cgroup": group, "proc/self/mountinfo": Self.v1Mounts, quota: "250000\n", period: "100000\n"]).quota == 3)
        #expect(try FileTree(["proc/self/cgroup": group, "proc/self/mountinfo": Self.v1Mounts, quota: "-1\n", period: "100000\n"]).quota == 0)
        #expect(
            try FileTree([
                "proc/self/cgroup": group, "proc/self/mountinfo": Self.v1Mounts, quota: "-1\n", period: "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "10000\n", "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "5000\n",
            ]).quota == 2)
        // A controller whose name only begins as the processors' does.
        #expect(
            try FileTree([
                "proc/self/cgroup": "12:cpuset:/docker/abc\n", "proc/self/mountinfo": Self.v1Mounts, quota: "250000\n", period: "100000\n",
            ]).quota == 0)
    }

    // A failure means that a container that sees its own group as the root of all, or at another place than the system does, finds no quota.
    @Test("mounts of a container are followed") func mountsOfAContainerAreFollowed() throws {
        let file = "sys/fs/c group/cpu.max"
        for (inner, group) in [("/", "/"), ("/docker/abc", "/docker/abc"), ("/docker/abc", "/elsewhere"), ("/", "/../other")] {
            let mounts = "30 23 0:26 \(inner) /sys/fs/c\\040group ro - cgroup2 cgroup rw\n"
            let tree = try FileTree(["proc/self/cgroup": "0::\(group)\n", "proc/self/mountinfo": mounts, file: "200000 100000\n"])
            #expect(tree.quota == 2, "\(inner) \(group)")
        }
        let nested = "30 23 0:26 /docker/abc /sys/fs/c\\040group ro - cgroup2 cgroup rw\n"
        let tree = try FileTree([
            "proc/self/cgroup": "0::/docker/abc/inner\n", "proc/self/mountinfo": nested, "sys/fs/c group/inner/cpu.max": "100000 100000\n", file: "200000 100000\n",
        ])
        #expect(tree.quota == 1)
    }

    // A failure means that a machine without cgroups, or with unreadable ones, ends the program or gets no threads.
    @Test("nonsense is no quota") func nonsenseIsNoQuota() throws {
        #expect(ak_processor_quota("/nowhere") == 0)
        #expect(ak_processor_quota(String(repeating: "/long", count: 2000)) == 0)
        #expect(try FileTree(["proc/self/cgroup": "0::/a\n"]).quota == 0)
        #expect(try FileTree(["proc/self/cgroup": "\n::\n0\n0:\n", "proc/self/mountinfo": "- - -\n - cgroup2\n\n"]).quota == 0)
        let long = String(repeating: "/deep", count: 2000)
        #expect(try FileTree(["proc/self/cgroup": "0::\(long)\n", "proc/self/mountinfo": Self.v2Mount]).quota == 0)
        #expect(ak_processor_count() >= 1)
    }
}
#endif
