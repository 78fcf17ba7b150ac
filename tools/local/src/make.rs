use std::error::Error;
use std::io::{Write, stderr, stdout};

use local::Stack;

use crate::arguments::Arguments;
use crate::serve::{stopped, write_ready_file};

pub(crate) async fn make(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stack = Stack::start(arguments.options()).await?;
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, stack.ready())?;
    }
    let order = arguments.order.fields(&arguments.prompt);
    let made = tokio::select! {
        made = poster::make_locally(&stack.ready().api, order, &arguments.out) => made,
        _ = poster::stopped() => {
            writeln!(stderr(), "\nstopping: waiting for the picture; press Ctrl-C again to stop at once")?;
            Err("interrupted".to_owned())
        }
    };
    stopped(stack).await;
    let (job, path) = made?;
    let image = job.image.ok_or("the job has no picture")?;
    let seed = image.seed.map_or_else(|| "unknown".to_owned(), |seed| seed.to_string());
    let (width, height, bytes) = (image.width, image.height, image.bytes);
    writeln!(stdout(), "{}\n  {width} × {height} pixels, {bytes} bytes, seed {seed}", path.display())?;
    Ok(())
}
