//! Tensors: strided views, broadcasting, element types, and who holds how many bytes.

use eckart::{DType, Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::new(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3], &device);
    let before = device.ledger().live().total();
    let column = x.t().slice(0, 1, 2); // [2, 2]: transposed and sliced, still x's storage
    assert_eq!(device.ledger().live().total(), before);
    println!("{:?} -> {:?}", column.shape(), column.to_vec::<f32>()?);

    let scaled = &x * &Tensor::new(&[1.0_f32, 10.0, 100.0], [3], &device) + 0.5;
    println!("{:?}", scaled.to_vec::<f32>()?);
    println!("softmax over rows: {:?}", x.softmax(-1).to_vec::<f32>()?);
    println!("{:?} takes {} bytes", x.cast(DType::BF16), x.cast(DType::BF16).spec().bytes());
    for (tag, bytes) in device.ledger().peak().by_tag() {
        println!("{:>12} {bytes:>4} bytes at the peak", tag.name());
    }
    Ok(())
}
