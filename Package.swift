// swift-tools-version: 6.1
import PackageDescription

let package = Package(
    name: "AdaLLaVA",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "AdaLLaVA", targets: ["AdaLLaVA"]),
        .library(name: "AdaImages", targets: ["AdaImages"]),
        .executable(name: "adallava", targets: ["adallava"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // C: every compute kernel, portable and per instruction set, behind one table of function pointers.
        .target(name: "AdaKernels", cSettings: [.define("_GNU_SOURCE")]),

        // The engine that people import. It takes pixels, so an app can bring its own image decoder. SHA-256 names what caches hold.
        .target(name: "AdaLLaVA", dependencies: ["AdaKernels", .product(name: "Crypto", package: "swift-crypto")]),

        // Measures the engine from inside: operations by themselves, phases of an answer, weights of made-up values. Not part of the library.
        .target(name: "AdaProbes", dependencies: ["AdaKernels", "AdaLLaVA"]),

        // Image files to RGB pixels: the only place that decodes.
        .systemLibrary(
            name: "CJPEG", pkgConfig: "libjpeg", providers: [.apt(["libjpeg-dev"]), .brew(["jpeg-turbo"])]),
        .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"]), .brew(["libpng"])]),
        .systemLibrary(name: "CWebP", pkgConfig: "libwebpdemux", providers: [.apt(["libwebp-dev"]), .brew(["webp"])]),
        // C: libjpeg and libpng behind functions that return a status, so that their longjmp stays out of Swift; and zlib, which libpng brings.
        .target(name: "CImageShims", dependencies: ["CJPEG", "CPNG"], linkerSettings: [.linkedLibrary("z")]),
        .target(name: "AdaImages", dependencies: ["AdaLLaVA", "CImageShims", "CWebP"]),

        // The project's own visual question answering set, drawn with FreeType: what the trainer, the evaluator and the demo use.
        .systemLibrary(name: "CFreeType", pkgConfig: "freetype2", providers: [.apt(["libfreetype-dev"]), .brew(["freetype"])]),
        // SHA-512 seeds the reference script's random numbers.
        .target(
            name: "AdaScenes", dependencies: ["AdaLLaVA", "AdaImages", "CFreeType", .product(name: "Crypto", package: "swift-crypto")]),

        // Benchmark readers, metrics, resumable evaluation, the roofline analyzer, and charts (gnuplot, as a child process).
        .target(name: "AdaEvaluation", dependencies: ["AdaLLaVA", "AdaProbes", "AdaImages"]),

        // Messages typed on a terminal: C around libedit, whose interface is variadic and calls back.
        .systemLibrary(name: "CEditLine", pkgConfig: "libedit", providers: [.apt(["libedit-dev"])]),
        .target(name: "CLineEditor", dependencies: ["CEditLine"], cSettings: [.define("_GNU_SOURCE")]),

        // The trainer. What it computes with, libAdaTorch, is C++ over libtorch: scripts/build-adatorch.sh builds it from Sources/AdaTorch and
        // it is opened at run time, so that the package builds without libtorch. Only its C header is a target.
        .systemLibrary(name: "CAdaTorch", path: "Sources/AdaTorch/include"),
        .target(
            name: "AdaTraining", dependencies: ["AdaLLaVA", "AdaImages", "CAdaTorch", .product(name: "Yams", package: "Yams")]),

        // The HTTP server: OpenAI's API in front of one model, on Hummingbird.
        .target(
            name: "AdaServer",
            dependencies: [
                "AdaLLaVA", "AdaImages", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"), .product(name: "Logging", package: "swift-log"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "Crypto", package: "swift-crypto"),
            ], resources: [.embedInCode("openapi.json"), .embedInCode("Page/page.html"), .embedInCode("Page/page.css"), .embedInCode("Page/page.js")]),

        // The command line: one file per subcommand, no logic of its own.
        .executableTarget(
            name: "adallava",
            dependencies: [
                "AdaLLaVA", "AdaImages", "AdaScenes", "AdaEvaluation", "AdaTraining", "AdaServer", "CLineEditor",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            plugins: ["BuildStamp"]),
        // Names the commit for `--version`.
        .plugin(name: "BuildStamp", capability: .buildTool()),

        // What the performance claims are measured with.
        .executableTarget(
            name: "adallava-bench",
            dependencies: ["AdaLLaVA", "AdaProbes", "AdaEvaluation", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Benchmarks/AdaBenchmarks"),
        // Hot paths for an instruction counter: scripts/check-instructions.py.
        .executableTarget(name: "adallava-instructions", dependencies: ["AdaLLaVA", "AdaProbes"], path: "Benchmarks/Instructions"),

        .testTarget(name: "AdaKernelsTests", dependencies: ["AdaKernels"]),
        .testTarget(
            name: "AdaLLaVATests", dependencies: ["AdaLLaVA", "AdaProbes", "AdaImages", .product(name: "Crypto", package: "swift-crypto")]),
        .testTarget(name: "AdaImagesTests", dependencies: ["AdaImages"]),
        .testTarget(name: "AdaTrainingTests", dependencies: ["AdaTraining", "AdaImages"]),
        .testTarget(name: "AdaScenesTests", dependencies: ["AdaScenes", "AdaImages"]),
        // The built executable as a child process; depending on it is what builds it.
        .testTarget(
            name: "AdaEvaluationTests", dependencies: ["AdaEvaluation", "AdaLLaVA", "AdaImages", "AdaScenes", "AdaTraining", "adallava"]),
        // Need files that are not in the repository; scripts/check-slow.sh fetches them and runs these.
        .testTarget(name: "SlowTests", dependencies: ["AdaLLaVA"]),
        .testTarget(name: "CommandTests", dependencies: ["adallava", "AdaLLaVA"]),
        .testTarget(
            name: "AdaServerTests",
            dependencies: [
                "AdaServer", "adallava", "AdaLLaVA", "AdaImages", .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ]),
    ]
)
