/// Tensors of another source under other names; those without a new name are left out.
public struct RenamedTensors: TensorSource {
    public let names: [String]

    private let source: any TensorSource
    private let storedNames: [String: String]

    public var location: String { source.location }

    /// - Parameter rename: the new name of a tensor, `nil` to leave it out.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if two tensors get the same name.
    public init(_ source: any TensorSource, rename: (String) -> String?) throws {
        var storedNames: [String: String] = [:]
        for stored in source.names {
            guard let name = rename(stored) else { continue }
            if let other = storedNames.updateValue(stored, forKey: name) {
                throw CheckpointError.malformed(file: source.location, reason: "\(other) and \(stored) are both \(name)")
            }
        }
        self.source = source
        self.storedNames = storedNames
        names = storedNames.keys.sorted()
    }

    /// The tensor under its new name.
    public func find(_ name: String) -> StoredTensor? {
        guard let stored = storedNames[name], let tensor = source.find(stored) else { return nil }
        return StoredTensor(name: name, type: tensor.type, shape: tensor.shape, bytes: tensor.bytes, file: tensor.file)
    }

    /// What the file calls the tensor `name`.
    public func storedName(of name: String) -> String? { storedNames[name] }
}
