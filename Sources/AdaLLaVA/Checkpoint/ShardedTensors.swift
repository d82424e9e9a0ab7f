import Foundation

/// A checkpoint spread over several files, joined by an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) whose `weight_map` says
/// which file holds which tensor. Tensors that a shard holds but the index does not name are left out, and so are those that the index names and no shard
/// holds: layers that were taken off a model, which nothing needs.
package struct ShardedTensors: TensorSource {
    package let names: [String]
    package let location: String
    /// The shards, by file name.
    package let shards: [String: any TensorSource]

    private let shardOfTensor: [String: String]

    /// Opens every shard that the index names; the shards are in the folder of the index.
    /// - Throws: ``CheckpointError``; a missing shard is ``CheckpointError/missing(file:needed:)`` and names the index.
    package init(index url: URL, needed: String = "it was named as input") throws {
        let file = try MappedFile(contentsOf: url, needed: needed)
        let weightMap = try Self.readWeightMap(file)
        let folder = url.deletingLastPathComponent()

        var shards: [String: any TensorSource] = [:]
        var aliases: [(String, String)] = []
        for name in Set(weightMap.values).sorted() {
            guard Self.isPlainFileName(name) else {
                throw CheckpointError.malformed(
                    file: file.path, reason: "the shard \"\(name.prefix(200))\" is not a plain file name: shards are in the folder of the index")
            }
            let shard = try MappedFile(contentsOf: folder.appendingPathComponent(name), needed: "a shard that \(url.lastPathComponent) names")
            if WeightFiles.isPyTorch(name) {
                shards[name] = try TorchArchive(shard)
            } else {
                let tensors = try SafetensorsFile(shard)
                shards[name] = tensors
                aliases += tensors.aliases.map { ($0, name) }
            }
        }
        let found = weightMap.filter { tensor, shard in shards[shard]?.find(tensor) != nil }
        self.shards = shards
        shardOfTensor = found.merging(aliases) { indexed, _ in indexed }
        names = shardOfTensor.keys.sorted()
        location = url.path
    }

    package func find(_ name: String) -> StoredTensor? {
        shardOfTensor[name].flatMap { shards[$0]?.find(name) }
    }

    private static func readWeightMap(_ file: MappedFile) throws -> [String: String] {
        guard file.bytes.count <= SafetensorsFile.headerLimit else {
            throw CheckpointError.malformed(
                file: file.path, reason: "an index of \(file.bytes.count) bytes, expected at most \(SafetensorsFile.headerLimit)")
        }
        var reader = try JSONReader(file.bytes, file: file.path)
        var weightMap: [String: String]?
        try reader.readObject { key, reader in
            guard key == "weight_map" else { return try reader.skipValue() }
            var map: [String: String] = [:]
            try reader.readObject { tensor, reader in map[tensor] = try reader.readString() }
            weightMap = map
        }
        try reader.expectEnd()
        guard let weightMap, !weightMap.isEmpty else {
            throw CheckpointError.malformed(file: file.path, reason: "expected a weight_map with at least one tensor")
        }
        return weightMap
    }

    private static func isPlainFileName(_ name: String) -> Bool {
        !name.isEmpty && name != "." && name != ".." && name.utf8.count <= 255
            && !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") || $0 < 0x20 }
    }
}
