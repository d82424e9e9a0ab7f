import AdaLLaVA
import CAdaTorch
import Foundation

/// The rank of this process in a data-parallel launch, from the environment that torchrun, Slurm and mpirun set.
package struct Launch: Sendable, Equatable {
    package var rank = 0
    package var worldSize = 1
    /// The process's number on its machine, which picks its CUDA device.
    package var localRank = 0
    package var address = "127.0.0.1"
    package var port = 29500

    package init() {}

    /// Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, or Slurm's and Open MPI's own variables for the first three.
    /// - Throws: ``TrainingError/launch(variable:expected:found:)``
    package init(environment: [String: String]) throws {
        func number(_ names: [String], _ range: ClosedRange<Int>, _ missing: Int) throws -> Int {
            guard let name = names.first(where: { environment[$0]?.isEmpty == false }), let text = environment[name] else { return missing }
            guard let value = Int(text), range.contains(value) else {
                throw TrainingError.launch(variable: name, expected: "a number from \(range.lowerBound) to \(range.upperBound)", found: text)
            }
            return value
        }
        worldSize = try number(["WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"], 1 ... 65536, 1)
        rank = try number(["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"], 0 ... worldSize - 1, 0)
        localRank = try number(["LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"], 0 ... worldSize - 1, 0)
        address = environment["MASTER_ADDR"] ?? "127.0.0.1"
        port = try number(["MASTER_PORT"], 1 ... 65535, 29500)
    }
}

/// The processes that train together, joined by libtorch's c10d.
package final class TorchProcessGroup {
    let handle: OpaquePointer
    private let library: TorchLibrary

    /// Waits until all processes have come.
    /// - Throws: ``TrainingError/torch(operation:reason:)``
    package init(_ launch: Launch, cudaDevice: Int?, library: TorchLibrary, timeout: Duration = .seconds(1800)) throws {
        let handle = library.functions.group_create(
            launch.address, Int32(launch.port), Int32(launch.rank), Int32(launch.worldSize), cudaDevice.map { Int32($0) } ?? -1,
            Int32(timeout.components.seconds))
        guard let handle else { throw library.failure("joining the other processes at \(launch.address):\(launch.port)") }
        (self.handle, self.library) = (handle, library)
    }

    deinit { library.functions.group_free(handle) }

    /// The sums of these numbers over all processes.
    package func sum(_ values: [Double]) throws -> [Double] {
        var values = values
        try library.check(library.functions.sum(handle, &values, Int64(values.count)), "summing over the processes")
        return values
    }

    /// Sums the model's gradients over all processes.
    package func sumGradients(of model: TorchModel) throws {
        try library.check(library.functions.sum_gradients(model.handle, handle), "summing gradients over the processes")
    }

    /// Gives every process the first one's parameters.
    package func broadcast(_ model: TorchModel) throws {
        try library.check(library.functions.broadcast(model.handle, handle), "sending the parameters to all processes")
    }
}
