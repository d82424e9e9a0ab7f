// swift-tools-version: 6.1
import PackageDescription

// Programs that use AdaLLaVA as a package. An app outside this repository names its URL instead of the path.
let adallava: [Target.Dependency] = [.product(name: "AdaLLaVA", package: "AdaLLaVA"), .product(name: "AdaImages", package: "AdaLLaVA")]

let package = Package(
    name: "Examples",
    platforms: [.macOS(.v15)],
    dependencies: [.package(name: "AdaLLaVA", path: "..")],
    targets: [
        .executableTarget(name: "Stream", dependencies: adallava),
        .executableTarget(name: "Budgets", dependencies: adallava),
        .executableTarget(name: "Deadline", dependencies: adallava),
        .executableTarget(name: "Several", dependencies: adallava),
    ]
)
