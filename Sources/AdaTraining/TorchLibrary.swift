import AdaLLaVA
import CAdaTorch
import Foundation

/// `libAdaTorch.so`, opened: AdaLLaVA's training step over libtorch.
///
/// It is loaded at run time, so that everything but training works without libtorch.
package final class TorchLibrary: @unchecked Sendable {
    let functions: at_functions
    /// Where it was found.
    package let path: String

    /// The library, loaded once for the process.
    /// - Throws: ``TrainingError/noTorch(reason:)``
    package static func shared() throws -> TorchLibrary { try loaded.get() }

    private static let loaded = Result<TorchLibrary, any Error> { try TorchLibrary() }

    private init() throws {
        let candidates = TorchLibrary.candidates
        guard let path = candidates.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
            throw TrainingError.noTorch(reason: "looked for \(candidates.joined(separator: ", "))")
        }
        // Before libtorch is loaded: one process trains with the threads that the recipe names, never with a pool of each library's own.
        setenv("OPENBLAS_NUM_THREADS", "1", 0)
        setenv("OMP_WAIT_POLICY", "PASSIVE", 0)
        // Global, so that OpenBLAS's own functions are visible.
        guard let handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL) else {
            throw TrainingError.noTorch(reason: "\(path) cannot be loaded: \(dlerror().map { String(cString: $0) } ?? "no reason given")")
        }
        typealias Interface = @convention(c) (Int32) -> UnsafePointer<at_functions>?
        guard let symbol = dlsym(handle, "at_interface") else {
            throw TrainingError.noTorch(reason: "\(path) is not an AdaTorch library: it has no at_interface")
        }
        guard let table = unsafeBitCast(symbol, to: Interface.self)(AT_INTERFACE_VERSION) else {
            throw TrainingError.noTorch(reason: "\(path) is of another version than \(AT_INTERFACE_VERSION); build it again")
        }
        functions = table.pointee
        self.path = path
    }

    /// `ADATORCH_LIBRARY`, then the executable's folder and the folders above it, then the working folder.
    private static var candidates: [String] {
        if let named = ProcessInfo.processInfo.environment["ADATORCH_LIBRARY"], !named.isEmpty { return [named] }
        let name = "libAdaTorch.so"
        var candidates = [FileManager.default.currentDirectoryPath + "/build/adatorch/" + name]
        let executable = URL(fileURLWithPath: Bundle.main.executablePath ?? CommandLine.arguments[0]).resolvingSymlinksInPath()
        var folder = executable.deletingLastPathComponent()
        candidates.append(folder.appendingPathComponent(name).path)
        candidates.append(folder.deletingLastPathComponent().appendingPathComponent("lib/adallava/" + name).path)
        for _ in 0 ..< 5 {
            folder = folder.deletingLastPathComponent()
            candidates.append(folder.appendingPathComponent("build/adatorch/" + name).path)
        }
        return candidates
    }

    /// libtorch's version and the devices that it supports.
    package var summary: String { functions.description().map { String(cString: $0) } ?? "" }

    /// CUDA devices that libtorch sees.
    package var cudaDevices: Int { Int(functions.cuda_devices()) }

    func failure(_ operation: String) -> TrainingError {
        .torch(operation: operation, reason: functions.last_error().map { String(cString: $0) } ?? "")
    }

    func check(_ status: Int32, _ operation: @autoclosure () -> String) throws {
        guard status == 0 else { throw failure(operation()) }
    }
}
