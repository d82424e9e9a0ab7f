import AdaKernels

/// Memory that holds Q8_0, Q4_0 and Q4_1 weights while a model runs; results are the same.
public enum WeightPlacement: Sendable {
    /// In the file from a gigabyte on, if this processor multiplies them there as fast (AVX2, AVX-512 with VNNI and VBMI but without AMX); packed in
    /// memory otherwise.
    case automatic
    /// Packed in memory.
    case memory
    /// In the mapped file: loading is immediate, and the pages are shared with other processes.
    case file
}

/// Packs the weights of a model while it loads, on the threads of one pool. The result does not depend on the number of threads.
package final class WeightPacker {
    let kernels: KernelSet
    let pool: ThreadPool
    /// Whether weights are packed for speed. Without it they stay in the mapped file, which loads at once and computes slowly.
    let packs: Bool
    private let placement: WeightPlacement
    private let arena = HugePageArena()
    /// Bytes that were packed so far.
    private var packedBytes = 0

    package init(kernels: KernelSet, pool: ThreadPool, placement: WeightPlacement = .automatic, packs: Bool = true) {
        (self.kernels, self.pool, self.placement, self.packs) = (kernels, pool, placement, packs)
    }

    /// Weights of files of this size or more are multiplied in the mapped file if that is as fast: packing a gigabyte takes most of a second, and as much
    /// memory again until the file's pages are given back. Smaller files are packed unnoticed, and short prompts are faster then.
    private static let mappedBytes = 1 << 30

    /// Whether the weights of `tensor` are multiplied in the mapped file.
    /// - Parameter picksInputs: whether plans leave inputs out, for which panels are faster.
    func maps(_ tensor: StoredTensor, picksInputs: Bool) -> Bool {
        if !packs { return true }
        guard tensor.type.multipliesInFile else { return false }
        switch placement {
        case .memory: return false
        case .file: return true
        case .automatic: return !picksInputs && tensor.file.bytes.count >= WeightPacker.mappedBytes && kernels.tuning.mapped_rows != 0
        }
    }

    /// Panels of `type` in a bundle, for a matrix of which plans leave inputs out: as many as the kernels read as one stream, but at most a quarter of the
    /// matrix, so that there is work for several threads.
    func panelsPerBundle(_ type: ak_type, panels: Int) -> Int {
        let isQuantized = [AK_Q8_0, AK_Q4_0, AK_Q4_1].contains(type)
        let most = isQuantized ? max(Int(kernels.tuning.bundle_panels), WeightPacker.tilePanels) : WeightPacker.tilePanels
        guard most > WeightPacker.tilePanels else { return most }
        let size = max(min(most, panels / 4), WeightPacker.tilePanels)
        // A little fewer if the last bundle would be nearly empty.
        let bundles = (panels + size - 1) / size
        return max((panels + bundles - 1) / bundles, 1)
    }

    /// Panels that a tile takes at once (`AK_TILE_PANELS`).
    private static let tilePanels = 4

    /// Packs `panels` panels of a matrix.
    /// - Throws: ``ComputeError/noMemory(what:bytes:)``
    func pack(_ tensor: StoredTensor, as type: ak_type, bundle: Int, rows: Int, inputs: Int, panels: Int, panelBytes: Int) throws -> AlignedMemory? {
        guard let kernelType = tensor.type.kernelType, let rowBytes = tensor.type.bytes(for: inputs), let base = tensor.bytes.baseAddress else { return nil }
        let reader = tensor.type.isFloat8 ? try RowReader(tensor, columns: inputs) : nil
        let memory: AlignedMemory
        do { memory = try arena.allocate(checked: panels * panelBytes) } catch {
            throw ComputeError.noMemory(what: "the weights", bytes: packedBytes + panels * panelBytes)
        }
        packedBytes += panels * panelBytes
        let perItem = max(1, (1 << 18) / panelBytes / bundle) * bundle
        let address = SendablePointer(memory.address)
        pool.run((panels + perItem - 1) / perItem) { item, _ in
            let first = item * perItem
            if let reader {
                let (top, count) = (first * Int(AK_PANEL), min(perItem, panels - first))
                let known = max(0, min(rows - top, count * Int(AK_PANEL)))
                let values = [Float](unsafeUninitializedCapacity: known * inputs) { values, filled in
                    if let start = values.baseAddress { for row in 0 ..< known { reader.read(top + row, into: start + row * inputs) } }
                    filled = known * inputs
                }
                ak_pack_panels(
                    address.pointer + first * panelBytes, type, Int32(bundle), values, AK_F32, inputs * MemoryLayout<Float>.size, Int32(known),
                    Int32(inputs), 0, Int32(count))
                return
            }
            ak_pack_panels(
                address.pointer + first * panelBytes, type, Int32(bundle), base, kernelType, rowBytes, Int32(rows), Int32(inputs), Int32(first),
                Int32(min(perItem, panels - first)))
        }
        // The packed copy replaces the file's pages.
        tensor.file.release(tensor.bytes)
        return memory
    }
}
