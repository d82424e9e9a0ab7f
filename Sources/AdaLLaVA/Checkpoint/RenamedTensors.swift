/// Tensors of another source under other names; those without a new name are left out. One that holds several stacked by rows can be taken apart; the
/// parts are not copied.
package struct RenamedTensors: TensorSource {
    package let names: [String]

    /// A tensor of the source, or some of its rows.
    private struct Place {
        let stored: String
        let rows: Range<Int>?
    }

    /// One of several tensors that are stored as one.
    package struct Part {
        let name: String
        let rows: Int

        package init(name: String, rows: Int) { (self.name, self.rows) = (name, rows) }
    }

    private let source: any TensorSource
    private let places: [String: Place]

    package var location: String { source.location }

    /// - Parameters:
    ///   - split: the parts of a tensor that holds several, in order; `nil` for every other.
    ///   - rename: the new name of a tensor, `nil` to leave it out.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if two tensors get the same name, ``CheckpointError/shape(tensor:expected:found:file:)``
    ///   if parts do not make up a whole tensor.
    package init(_ source: any TensorSource, split: (String) -> [Part]? = { _ in nil }, rename: (String) -> String?) throws {
        var places: [String: Place] = [:]
        func add(_ name: String, _ place: Place) throws {
            if let other = places.updateValue(place, forKey: name) {
                throw CheckpointError.malformed(file: source.location, reason: "\(other.stored) and \(place.stored) are both \(name)")
            }
        }
        for stored in source.names {
            guard let parts = split(stored) else {
                if let name = rename(stored) { try add(name, Place(stored: stored, rows: nil)) }
                continue
            }
            let whole = try source.tensor(stored), rows = parts.reduce(0) { $0 + $1.rows }
            guard whole.shape.first == rows else {
                throw CheckpointError.shape(tensor: stored, expected: [rows] + whole.shape.dropFirst(), found: whole.shape, file: source.location)
            }
            var first = 0
            for part in parts {
                let rows = first ..< first + part.rows
                guard whole.rows(rows, named: part.name) != nil else {
                    throw CheckpointError.elementType(
                        tensor: stored, expected: "a type whose blocks end with row \(rows.upperBound)", found: whole.typeName,
                        file: source.location)
                }
                try add(part.name, Place(stored: stored, rows: rows))
                first = rows.upperBound
            }
        }
        self.source = source
        self.places = places
        names = places.keys.sorted()
    }

    /// The tensor under its new name.
    package func find(_ name: String) -> StoredTensor? {
        guard let place = places[name], let tensor = source.find(place.stored) else { return nil }
        if let rows = place.rows { return tensor.rows(rows, named: name) }
        return tensor.named(name)
    }

    /// The file's name of the tensor `name`.
    package func storedName(of name: String) -> String? { places[name]?.stored }
}
